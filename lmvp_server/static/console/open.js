// Redeems the code of a sign-in link: it is behind the `#`, leaves the address bar and the history at once, and goes to
// the server by POST. Without a code, the form of the page takes one.
const form = document.getElementById("open");
const code = location.hash.slice(1);

function send() {
  form.elements.code.value = code;
  form.submit();
}

if (form && code) {
  history.replaceState(null, "", location.pathname);
  form.style.visibility = "hidden"; // it keeps its place: the page that follows replaces it
  // A browser may load a page that nobody has opened yet; the code is for the page that is looked at.
  if (document.prerendering) document.addEventListener("prerenderingchange", send, { once: true });
  else send();
}
