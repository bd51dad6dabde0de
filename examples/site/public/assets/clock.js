const clock = document.querySelector("#clock");

function tick() {
  clock.textContent = `It is ${new Date().toLocaleTimeString()} where you are.`;
}

tick();
setInterval(tick, 1000);
