// JupyterLab's launcher tile and palette command that open LMVP's console in a new tab of the browser.
//
// A container of webpack's module federation, written by hand: the wheel contains this file as it is, without a build.
// JupyterLab calls `init` with its shared packages, and then `get("./extension")` for a factory of the plugins.
"use strict";
(() => {
  const ADDRESS = "api/lmvp/console";
  const COMMAND = "lmvp:open-console";

  // The mark of LMVP, four layers of a network. The colours are those of lmvp_server/static/tokens.css.
  const MARK = `<svg xmlns="http://www.w3.org/2000/svg" width="16" viewBox="0 0 32 32" class="lmvp-mark">
    <rect class="little" x="2" y="5" width="7" height="22"/><rect class="same" x="10" y="15" width="6" height="2"/>
    <rect class="more" x="17" y="5" width="3" height="22"/><rect class="most" x="21" y="5" width="9" height="22"/>
    </svg>`;
  const COLOURS = `
    .lmvp-mark { --little: #eaaac9; --same: #81868b; --more: #d474a6; --most: #671948 }
    [data-jp-theme-light="false"] .lmvp-mark { --little: #a95086; --same: #73787e; --more: #d474a6; --most: #ffd3e6 }
    [data-jp-theme-name~="Contrast"] .lmvp-mark { --little: #cf6ba3; --same: #fff; --more: #e78fbf; --most: #ffe6f2 }
    .lmvp-mark .little { fill: var(--little) } .lmvp-mark .same { fill: var(--same) }
    .lmvp-mark .more { fill: var(--more) } .lmvp-mark .most { fill: var(--most) }`;

  let packages = {};

  /** A package in the one instance that JupyterLab uses, by the rule of webpack for singletons; null if it has none. */
  async function shared(name) {
    const versions = Object.entries(packages[name] ?? {});
    versions.sort(([a], [b]) => b.localeCompare(a, "en", { numeric: true }));
    const [, entry] = versions.find(([, each]) => each.loaded) ?? versions[0] ?? [];
    if (!entry) return null;
    entry.loaded = 1;
    return (await entry.get())();
  }

  class Problem extends Error {
    constructor(message, fix) {
      super(message);
      this.fix = fix;
    }
  }

  /** Ask the Jupyter server for the address of the console; it checks first that the console can be shown. */
  async function consoleAddress({ ServerConnection }, settings) {
    let response, answer;
    try {
      response = await ServerConnection.makeRequest(settings.baseUrl + ADDRESS, { method: "POST" }, settings);
      answer = await response.json().catch(() => ({}));
    } catch {
      throw new Problem("The Jupyter server does not answer.", "Check that it is running, then click again.");
    }
    if (response.ok) return new URL(answer.url, settings.baseUrl).href;
    if (answer.error) throw new Problem(answer.error.message, answer.error.hint);
    if (response.status === 404) {
      throw new Problem(
        "LMVP's extension of the Jupyter server is off.",
        "Run `jupyter server extension enable lmvp_jupyter --sys-prefix`, then restart Jupyter.",
      );
    }
    if (response.status === 403) {
      throw new Problem(
        "This Jupyter account may not use LMVP's console.",
        "Sign in to Jupyter again, or ask its administrator for access to the resource `lmvp`.",
      );
    }
    throw new Problem(`The Jupyter server answered with status ${response.status}.`, "Its log states the reason.");
  }

  /** A message as a paragraph; LMVP begins messages in lower case, without a full stop. Words in backticks are code. */
  function paragraph(text) {
    const node = document.createElement("p");
    const capital = text.replace(/^[a-z]+(?![\w:])/, (word) => word[0].toUpperCase() + word.slice(1));
    capital.replace(/\.?$/, ".").split("`").forEach((part, index) => {
      node.append(index % 2 ? Object.assign(document.createElement("code"), { textContent: part }) : part);
    });
    return node;
  }

  function createPlugin({ Dialog, ICommandPalette, showDialog }, services, { LabIcon }, { Widget }, launchers) {
    const show = (title, ...nodes) => {
      const node = document.createElement("div");
      node.append(...nodes);
      return showDialog({ title, body: new Widget({ node }), buttons: [Dialog.okButton()] });
    };

    async function openConsole(settings) {
      // Opened by the click itself: browsers block a tab that is opened after an answer has come.
      const tab = window.open("", "_blank");
      if (tab) tab.document.title = "LMVP";
      try {
        const url = await consoleAddress(services, settings);
        if (tab) {
          tab.opener = null; // the console gets no hold of JupyterLab
          tab.location.replace(url);
          return;
        }
        const link = document.createElement("a");
        Object.assign(link, { href: url, target: "_blank", rel: "noopener", textContent: "Open LMVP's console" });
        await show("The browser blocked the new tab", link);
      } catch (problem) {
        tab?.close();
        const fix = problem.fix ? [paragraph(`To fix it: ${problem.fix}`)] : [];
        await show("LMVP's console did not open", paragraph(problem.message), ...fix);
      }
    }

    return {
      id: "lmvp:console",
      description: "A launcher tile and a command that open LMVP's console.",
      autoStart: true,
      optional: [ICommandPalette, ...(launchers ? [launchers.ILauncher] : [])],
      activate: ({ commands, serviceManager }, palette, launcher) => {
        document.head.append(Object.assign(document.createElement("style"), { textContent: COLOURS }));
        commands.addCommand(COMMAND, {
          label: ({ isTile }) => (isTile ? "LMVP Console" : "Open LMVP Console"),
          caption: "Open the console of the LMVP server in use, in a new browser tab",
          icon: new LabIcon({ name: "lmvp:mark", svgstr: MARK }),
          execute: () => openConsole(serviceManager.serverSettings),
        });
        palette?.addItem({ command: COMMAND, category: "LMVP" });
        launcher?.add({ command: COMMAND, category: "Other", args: { isTile: true } });
      },
    };
  }

  const NEEDED = ["@jupyterlab/apputils", "@jupyterlab/services", "@jupyterlab/ui-components", "@lumino/widgets"];

  window._JUPYTERLAB ??= {};
  window._JUPYTERLAB.lmvp = {
    init(scope) {
      packages = scope;
    },
    async get(module) {
      if (module !== "./extension") throw new Error(`lmvp has no module ${module}`);
      const found = await Promise.all([...NEEDED, "@jupyterlab/launcher"].map(shared));
      const missing = NEEDED.filter((_, index) => !found[index]);
      if (missing.length) throw new Error(`lmvp needs ${missing.join(", ")}`);
      return () => ({ __esModule: true, default: createPlugin(...found) });
    },
  };
})();
