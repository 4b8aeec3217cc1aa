// Redeems the code of a sign-in link. The code is in the fragment of the URL (after `#`), is removed from the address
// bar and the history at once, and is sent to the server by POST. Without a code, the user enters one in the form.
const form = document.getElementById("open");
const code = location.hash.slice(1);

function send() {
  form.elements.code.value = code;
  form.submit();
}

if (form && code) {
  history.replaceState(null, "", location.pathname);
  form.style.visibility = "hidden"; // hidden but in the layout, so that nothing moves before the next page
  // A browser can prerender a page that nobody has opened. The code must be used only when the page is visible.
  if (document.prerendering) document.addEventListener("prerenderingchange", send, { once: true });
  else send();
}
