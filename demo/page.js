// Runs once with the conversation's element: reports clicks on its buttons, and keeps clips side by side in step.
element.addEventListener("click", (event) => {
  const button = event.target.closest("[data-do]");
  if (button) trigger("click", { do: button.dataset.do, number: Number(button.dataset.number) });
});

const together = (event) => {
  const pair = event.target.closest(".pair");
  for (const other of pair ? pair.querySelectorAll("video") : []) {
    if (Math.abs(other.currentTime - event.target.currentTime) > 0.1) other.currentTime = event.target.currentTime;
  }
};
for (const kind of ["playing", "seeked"]) element.addEventListener(kind, together, true);
