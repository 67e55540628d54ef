// Runs as a Web Worker. The browser slows the timers of hidden tabs down to one a minute, and a worker that says
// nothing for 25 s counts as gone. The timers of a Web Worker keep their time.
onmessage = ({ data: { id, ms } }) => setTimeout(() => postMessage(id), ms);
