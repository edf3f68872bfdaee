// The set-up code arrives in the URL's fragment, which never reaches a server
// or its logs. Move it into the form and out of the address bar.
const code = location.hash.slice(1);
if (code) {
  document.getElementById("code").value = code;
  history.replaceState(null, "", location.pathname);
  document.getElementById("name").focus();
}
