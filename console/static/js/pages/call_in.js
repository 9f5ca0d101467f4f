// A telephone in the page: microphone in, voice out, keys over a data channel, and one's own transcript beside it.
import { ApiError, LiveSocket, api } from "../api.js";
import { CallState } from "../call_state.js";
import { at, clock, h } from "../dom.js";
import { shortcut } from "../frame.js";
import { Talk } from "../talk.js";

const setup = at("setup");
const fields = setup.elements;
/** @type {RTCPeerConnection|null} */
let peer = null;
/** @type {MediaStream|null} */
let microphone = null;
/** @type {RTCDataChannel|null} */
let keypad = null;
/** @type {LiveSocket|null} */
let live = null;
/** @type {AudioContext|null} */
let listening = null;
let callId = "", began = 0, talk = null;

function trouble(title, text) {
  at("trouble").replaceChildren(h("b", {}, title), text);
  at("trouble").hidden = false;
}

/** Why the browser gives no microphone, in words that help. @param {any} error */
function microphoneTrouble(error) {
  if (!window.isSecureContext || !navigator.mediaDevices) {
    return ["This browser gives the microphone only to HTTPS pages", "Open the console on localhost, or start offhook with OFFHOOK_TLS_CERT and OFFHOOK_TLS_KEY set and use the https address."];
  }
  switch (error.name) {
    case "NotAllowedError": return ["The microphone is not allowed", "Allow it in the browser's address bar (and in the system's privacy settings), then call again."];
    case "NotFoundError": return ["There is no microphone", "Plug one in or switch it on, then call again."];
    case "NotReadableError": return ["The microphone is in use", "Another program holds it. Close that program, then call again."];
    default: return ["The microphone cannot be opened", error.message || String(error)];
  }
}

/** ICE candidates go with the offer (no trickling): wait for all of them, but not for ever. */
function gathered(connection) {
  if (connection.iceGatheringState === "complete") return Promise.resolve();
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, 3000);
    connection.addEventListener("icegatheringstatechange", () => {
      if (connection.iceGatheringState === "complete") { clearTimeout(timer); resolve(); }
    });
  });
}

async function dial() {
  at("trouble").hidden = true;
  at("dial").disabled = true;
  try {
    if (!navigator.mediaDevices) throw new DOMException("", "SecurityError");
    microphone = await navigator.mediaDevices.getUserMedia({ audio: { echoCancellation: true, noiseSuppression: true, autoGainControl: true, channelCount: 1 } });
  } catch (error) {
    trouble(...microphoneTrouble(error));
    at("dial").disabled = false;
    return;
  }
  onCall(true);
  status("connecting");
  try {
    await connect();
  } catch (error) {
    hangUp();
    trouble(error.message || "The call could not be made", error instanceof ApiError ? error.hint : "");
  }
}

async function connect() {
  const servers = JSON.parse(at("callin").dataset.ice).map((url) => iceServer(url));
  peer = new RTCPeerConnection({ iceServers: servers });
  for (const track of microphone.getTracks()) peer.addTrack(track, microphone);
  keypad = peer.createDataChannel("dtmf");
  peer.ontrack = ({ streams, track }) => { at("voice").srcObject = streams[0] || new MediaStream([track]); };
  const connection = peer;
  peer.onconnectionstatechange = () => {
    if (connection !== peer) return;
    if (connection.connectionState === "connected") { began ||= performance.now(); status("connected"); }
    if (connection.connectionState === "disconnected") status("connection lost, trying again");
    if (["failed", "closed"].includes(connection.connectionState)) { hangUp(); trouble("The connection was lost", "The network may not let the sound through. See OFFHOOK_ICE_SERVERS in the manual."); }
  };
  meter();
  await peer.setLocalDescription(await peer.createOffer());
  await gathered(peer);
  const { sdp, type } = peer.localDescription;
  status("ringing");
  const answer = await api("/webrtc/offer", { method: "POST", body: JSON.stringify({ sdp, type, mode: fields.mode.value, role: role(), reference: fields.mode.value === "assist" ? fields.reference.value.trim() : "" }) });
  if (connection !== peer) return; // hung up meanwhile
  callId = answer.call_id || answer.id || "";
  await peer.setRemoteDescription({ sdp: answer.sdp, type: answer.type || "answer" });
  follow();
}

/** "turn:user:password@host:port" or a plain stun/turn URL. @param {string} url */
function iceServer(url) {
  const found = /^(turns?):([^:]+):(.+)@([^@]+)$/.exec(url);
  return found ? { urls: `${found[1]}:${found[4]}`, username: found[2], credential: found[3] } : { urls: url };
}

const role = () => (fields.mode.value === "assist" ? fields.role.value : "caller");

function follow() {
  const call = new CallState();
  at("watch").href = `/live/${callId}`;
  at("watch").hidden = false;
  live?.close();
  at("talk").replaceChildren();
  at("talk-none").hidden = true;
  talk = new Talk(at("talk"), at("jump"), call);
  live = new LiveSocket(`/calls/${callId}/live`, (event) => {
    if (call.apply(event).part === "talk") talk.draw();
    if (event.type === "CallEnded") ended(event);
  }, () => {});
}

function ended(event) {
  hangUp();
  at("talk").append(h("li.event", {}, `The call has ended${event.reason ? `: ${event.reason}` : ""}.`, h("a", { href: `/calls/${callId}` }, "Review it")));
  talk?.toEnd();
}

function hangUp() {
  peer?.close();
  for (const track of microphone?.getTracks() || []) track.stop();
  listening?.close();
  at("voice").srcObject = null;
  peer = microphone = keypad = listening = null;
  began = 0;
  onCall(false);
}

function onCall(yes) {
  setup.hidden = yes;
  at("oncall").hidden = !yes;
  at("watch").hidden = true;
  at("dial").disabled = false;
  at("clock").textContent = "0:00";
  if (yes) at("hangup").focus();
}

function status(text) {
  at("status").textContent = text;
}

function meter() {
  listening = new AudioContext();
  const analyser = listening.createAnalyser();
  analyser.fftSize = 1024;
  listening.createMediaStreamSource(microphone).connect(analyser);
  const samples = new Float32Array(analyser.fftSize);
  const bar = at("meter").firstElementChild;
  let shown = 0;
  const draw = () => {
    if (!listening) return;
    analyser.getFloatTimeDomainData(samples);
    const power = Math.sqrt(samples.reduce((sum, x) => sum + x * x, 0) / samples.length);
    const level = Math.max(0, Math.min(1, 1 + (20 * Math.log10(power + 1e-6)) / 55)); // -55..0 dB
    shown = Math.max(level, shown * 0.9);
    bar.style.transform = `scaleX(${shown.toFixed(3)})`;
    at("meter").setAttribute("aria-valuenow", String(Math.round(shown * 100)));
    requestAnimationFrame(draw);
  };
  draw();
}

function press(digit) {
  if (keypad?.readyState !== "open") return;
  keypad.send(digit);
  const button = at("pad").querySelector(`[data-digit="${CSS.escape(digit)}"]`);
  button?.animate?.([{ transform: "scale(.94)" }, { transform: "none" }], 120);
}

function mute() {
  const track = microphone?.getAudioTracks()[0];
  if (!track) return;
  track.enabled = !track.enabled;
  at("mute").setAttribute("aria-pressed", String(!track.enabled));
  at("mute").querySelector("use").setAttribute("href", track.enabled ? "#i-mic" : "#i-mute");
  status(track.enabled ? "connected" : "muted");
}

function pairing() {
  at("pair").hidden = fields.mode.value !== "assist";
  if (!fields.reference.value) fields.reference.value = Math.random().toString(36).slice(2, 7);
  const query = new URLSearchParams({ mode: "assist", role: fields.role.value === "caller" ? "human_agent" : "caller", reference: fields.reference.value });
  at("invite").href = `/call?${query}`;
  at("invite").parentElement.firstChild.textContent = `Both of you use the same word. The ${fields.role.value === "caller" ? "agent" : "caller"} opens `;
}

const asked = new URLSearchParams(location.search);
for (const name of ["mode", "role", "reference"]) if (asked.get(name)) fields[name].value = asked.get(name);
pairing();
setup.addEventListener("input", pairing);
setup.addEventListener("submit", (event) => { event.preventDefault(); dial(); });
at("hangup").addEventListener("click", hangUp);
at("mute").addEventListener("click", mute);
at("pad").addEventListener("click", (event) => event.target.dataset.digit && press(event.target.dataset.digit));
addEventListener("keydown", (event) => { if (peer && /^[0-9*#]$/.test(event.key) && !event.ctrlKey && !event.metaKey) { press(event.key); event.preventDefault(); event.stopImmediatePropagation(); } }, true);
addEventListener("pagehide", hangUp);
setInterval(() => { if (began) at("clock").textContent = clock((performance.now() - began) / 1000); }, 500);
shortcut("m", "Mute", mute);
shortcut("h", "Hang up", () => peer && hangUp());
shortcut("c", "Call", () => peer || setup.requestSubmit());
shortcut(["0…9", "*", "#"], "Press a key of the telephone", () => {});
if (!window.isSecureContext) trouble(...microphoneTrouble({}));
