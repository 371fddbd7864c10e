const choice = document.getElementById("spectra-field");
if (choice) {
  const update = () => {
    for (const part of document.querySelectorAll("#spectra-view .of-field")) part.hidden = part.dataset.field !== choice.value;
  };
  choice.addEventListener("change", update);
  update();
}
