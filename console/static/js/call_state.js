// One call folded from its events, in the browser. Pure data: pages draw it. An event that comes twice changes nothing.

/**
 * @typedef {{id: string, at: number, clauses: string[], text: string, heard: string|null, interrupted: boolean,
 *   state: "waiting"|"playing"|"paused"|"over", responseMs: number|null, sources: string[], end: number|null}} Answer
 */

export class CallState {
  constructor() {
    this.about = { mode: "", state: "ringing", from: "", to: "", bridge: "", startedAt: 0, duration: null, reason: "", worker: "", model: "" };
    /** @type {Map<string, any>} finished and running utterances by id */
    this.utterances = new Map();
    /** @type {Map<string, any>} */
    this.hints = new Map();
    /** @type {Map<string, Answer>} */
    this.answers = new Map();
    /** @type {Map<string, any>} barge-ins, keys, holds and notices */
    this.moments = new Map();
    /** @type {Record<string, Map<number, any>>} participant -> chunk -> cell */
    this.decisions = {};
    this.counts = { chunks: 0, silent: 0, transcribe: 0, assist: 0, answer: 0, late: 0 };
    this.over = false;
  }

  /**
   * @param {any} event as the live socket sends it
   * @returns {{part: "about"|"talk"|"hint"|"decision"|"none", id?: string}} what changed
   */
  apply(event) {
    const handler = this[`on${event.type}`];
    return handler ? handler.call(this, event) : { part: "none" };
  }

  onCallOffered(e) {
    Object.assign(this.about, { mode: e.mode, from: e.from_, to: e.to, bridge: e.bridge, participants: e.participants });
    return { part: "about" };
  }
  onCallAccepted(e) {
    Object.assign(this.about, { worker: e.worker, model: e.model });
    return { part: "about" };
  }
  onCallStarted(e) {
    this.about.startedAt = e.started_at;
    this.about.state = { answer: "answering", assist: "assisting", transcribe: "transcribing" }[this.about.mode] || "answering";
    return { part: "about" };
  }
  onCallEnded(e) {
    Object.assign(this.about, { state: e.state, reason: e.reason, duration: e.duration_s });
    this.over = true;
    return { part: "about" };
  }
  onDecided(e) {
    const lane = (this.decisions[e.participant_id] ||= new Map());
    if (!lane.has(e.chunk)) {
      this.counts.chunks += 1;
      this.counts[e.choice] += 1;
      this.counts.late += e.late ? 1 : 0;
    }
    lane.set(e.chunk, { choice: e.choice, score: e.score, late: e.late });
    return { part: "decision" };
  }
  onPartial(e) {
    const held = this.utterances.get(e.utterance_id);
    if (held && !held.partial) return { part: "none" };
    this.utterances.set(e.utterance_id, { id: e.utterance_id, participant: e.participant_id, start: e.start_s, end: e.end_s, text: e.text, confidence: 1, partial: true });
    return { part: "talk", id: e.utterance_id };
  }
  onUttered(e) {
    const u = e.utterance, held = this.utterances.get(u.id);
    if (held && !held.partial && held.revision > u.revision) return { part: "none" };
    this.utterances.set(u.id, { id: u.id, participant: u.participant_id, start: u.start_s, end: u.end_s, text: u.text, confidence: u.confidence, revision: u.revision, partial: false });
    return { part: "talk", id: u.id };
  }
  onHintShown(e) {
    const held = this.hints.get(e.hint.id);
    this.hints.set(e.hint.id, { ...e.hint, verdict: held?.verdict || e.hint.verdict });
    return { part: "hint", id: e.hint.id };
  }
  onHintJudged(e) {
    const hint = this.hints.get(e.hint_id);
    if (hint) hint.verdict = e.verdict;
    return { part: "hint", id: e.hint_id };
  }

  /** @returns {Answer} */
  answer(id) {
    if (!this.answers.has(id)) {
      this.answers.set(id, { id, at: Infinity, clauses: [], text: "", heard: null, interrupted: false, state: "waiting", responseMs: null, sources: [], end: null });
    }
    return this.answers.get(id);
  }
  onSay(e) {
    const answer = this.answer(e.answer_id);
    if (e.text) answer.clauses[e.seq] = e.text;
    if (answer.state !== "over") answer.text = answer.clauses.filter(Boolean).join(" ");
    return { part: "talk", id: e.answer_id };
  }
  onPlayoutStarted(e) {
    const answer = this.answer(e.answer_id);
    answer.at = Math.min(answer.at, e.at_s);
    if (answer.state !== "over") answer.state = "playing";
    return { part: "talk", id: e.answer_id };
  }
  onBargeIn(e) {
    const answer = this.answer(e.answer_id);
    if (answer.state !== "over") answer.state = "paused";
    this.moments.set(`barge:${e.at_s}`, { kind: "barge", at: e.at_s, text: "The caller speaks over the answer" });
    return { part: "talk", id: `barge:${e.at_s}` };
  }
  onPlayoutResumed(e) {
    const answer = this.answer(e.answer_id);
    if (answer.state !== "over") answer.state = "playing";
    return { part: "talk", id: e.answer_id };
  }
  onPlayoutEnded(e) {
    const answer = this.answer(e.answer_id);
    Object.assign(answer, { state: "over", heard: e.heard_text, interrupted: e.interrupted, end: e.at_s });
    if (answer.at === Infinity) answer.at = e.at_s;
    return { part: "talk", id: e.answer_id };
  }
  onAnswered(e) {
    const a = e.answer;
    Object.assign(this.answer(a.id), { at: a.at_s, text: a.text, heard: a.heard_text, interrupted: a.interrupted, state: "over", responseMs: a.response_ms, sources: a.sources });
    return { part: "talk", id: a.id };
  }
  onStopSaying(e) {
    const answer = this.answers.get(e.answer_id);
    if (answer?.state === "waiting") this.answers.delete(e.answer_id);
    return { part: "talk", id: e.answer_id };
  }
  onDtmf(e) {
    this.moments.set(`key:${e.at_s}:${e.digit}`, { kind: "key", at: e.at_s, text: `Key ${e.digit}` });
    return { part: "talk" };
  }
  onHoldChanged(e) {
    this.moments.set(`hold:${e.at_s}`, { kind: "hold", at: e.at_s, text: e.held ? "On hold" : "Back from hold" });
    return { part: "talk" };
  }
  onNotice(e) {
    this.moments.set(`notice:${e.kind}:${e.at_s}`, { kind: "notice", at: e.at_s, text: e.text });
    return { part: "talk" };
  }

  /** Everything said and noticed, in the order of the call's clock. */
  talk() {
    const items = [];
    for (const u of this.utterances.values()) if (u.text) items.push({ kind: "utterance", id: u.id, at: u.start, data: u });
    for (const a of this.answers.values()) if (a.text || a.heard) items.push({ kind: "answer", id: `answer:${a.id}`, at: a.at, data: a });
    for (const [id, m] of this.moments) items.push({ kind: m.kind, id, at: m.at, data: m });
    return items.sort((a, b) => a.at - b.at);
  }
}
