// Every figure can be enlarged: by a click, a tap, or Enter when it has the focus. It opens alone in a dialog that is as
// large as the window; on a phone it is larger than that, to be moved about with a finger. Escape, the button or a click
// beside the picture closes it, and the focus is where it was. Without this script a figure is a picture like any other.

const PICTURES = "article figure img, article .cell_output img";

function zoomDialog() {
  const part = (name, properties) => Object.assign(document.createElement(name), properties);
  const dialog = part("dialog", { id: "zoom", ariaLabel: "Figure, enlarged" });
  const close = part("button", { type: "button", className: "zoom-close", textContent: "Close" });
  const frame = part("div", { className: "zoom-frame" });
  const caption = part("div", { className: "zoom-caption" });
  dialog.append(close, frame, caption);
  close.addEventListener("click", () => dialog.close());
  dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
  dialog.addEventListener("close", () => frame.replaceChildren()); // the focus returns by itself
  document.body.append(dialog);
  return (pictures) => {
    const picture = pictures.find((each) => each.checkVisibility());
    const large = part("img", { src: picture.src, alt: picture.alt, className: picture.className });
    const words = picture.closest("figure")?.querySelector("figcaption")?.cloneNode(true);
    words?.querySelector(".headerlink")?.remove();
    for (const link of words?.querySelectorAll("a") || []) link.replaceWith(...link.childNodes);
    caption.replaceChildren(...(words?.childNodes || []));
    frame.replaceChildren(large);
    dialog.showModal();
    const scrolls = frame.scrollWidth > frame.clientWidth || frame.scrollHeight > frame.clientHeight;
    frame.tabIndex = scrolls ? 0 : -1; // what scrolls can be reached with the Tab key
  };
}

addEventListener("DOMContentLoaded", () => {
  const pictures = [...document.querySelectorAll(PICTURES)].filter(
    (each) => !each.closest("a, button, .sigreg-player, .live") && !each.matches(".only-dark"),
  );
  if (!pictures.length || !window.HTMLDialogElement) return;
  const open = zoomDialog();
  for (const picture of pictures) {
    const button = Object.assign(document.createElement("button"), { type: "button", className: "zoom", title: "Enlarge" });
    button.setAttribute("aria-haspopup", "dialog");
    const inks = picture.matches(".only-light") ? [picture, picture.nextElementSibling] : [picture]; // one of them is shown
    picture.replaceWith(button);
    button.append(...inks);
    button.addEventListener("click", () => open(inks));
  }
});
