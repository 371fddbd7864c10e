const view = document.getElementById("map-view");
if (view) {
  const chosen = (name) => view.querySelector(`input[name="${name}"]:checked`).value;
  const update = () => {
    const [field, lead] = [chosen("map-field"), chosen("map-lead")];
    for (const pane of view.querySelectorAll(".pane")) pane.classList.toggle("on", pane.dataset.field === field && pane.dataset.lead === lead);
  };
  view.addEventListener("change", update);
  update();
}
