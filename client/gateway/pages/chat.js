"use strict";
// One conversation, answered by one model or by two side by side. Nothing is kept in the browser.

const by = (id) => document.getElementById(id);
const talk = by("talk");
const histories = new Map(); // model -> messages so far, so that each side remembers its own answers
let running = null;

function copy(id) {
  return by(id).content.firstElementChild.cloneNode(true);
}

function chosen() {
  const names = [by("first").value];
  const second = by("second") ? by("second").value : "";
  if (second && second !== names[0]) names.push(second);
  return names;
}

// A release that was trained to choose answers with one of its labels; what is beside it does too.
function among() {
  for (const id of ["first", "second"]) {
    const labels = by(id) && by(id).selectedOptions[0].dataset.labels;
    if (labels) return JSON.parse(labels);
  }
  return [];
}

function showLabels() {
  const labels = among();
  by("among").hidden = !labels.length;
  by("among").querySelector("summary").textContent = `Answers are one of ${labels.length} labels`;
  by("among").querySelector("p").textContent = labels.join(", ");
  by("limit").disabled = labels.length > 0;
}

async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    rest += value;
    const lines = rest.split("\n\n");
    rest = lines.pop();
    for (const line of lines) {
      const data = line.replace(/^data: /, "");
      if (data === "[DONE]") return;
      yield JSON.parse(data);
    }
  }
}

async function answer(side, model, labels, signal) {
  const history = histories.get(model);
  const said = side.querySelector(".said");
  const facts = side.querySelector(".facts");
  const began = performance.now();
  let first = 0;
  let cut = "";
  let result = { id: "", model: model, text: "" };
  said.classList.add("waiting");
  try {
    const response = await fetch("/v1/chat/completions", {
      method: "POST",
      headers: { "content-type": "application/json" },
      signal: signal,
      body: JSON.stringify({
        model: model, messages: history, stream: true, max_tokens: Number(by("limit").value),
        stream_options: { include_usage: true },
        ...(labels.length && { structured_outputs: { choice: labels } }),
      }),
    });
    if (response.status === 401) { location.assign("/sign-in?to=/chat"); return; }
    if (!response.ok) throw new Error((await response.json()).error.message);
    for await (const event of events(response)) {
      if (event.error) throw new Error(event.error.message);
      result.id = event.id;
      result.model = event.model;
      for (const choice of event.choices) {
        if (choice.delta.content && !first) first = performance.now();
        result.text += choice.delta.content || "";
        if (choice.finish_reason === "length") cut = ", cut at the longest answer";
      }
      said.textContent = result.text;
      if (event.usage) {
        const seconds = (performance.now() - began) / 1000;
        const start = first ? `, first words after ${((first - began) / 1000).toFixed(1)} s` : "";
        facts.textContent = labels.length
          ? `chosen among ${labels.length} labels in ${seconds.toFixed(1)} s`
          : `${event.usage.completion_tokens} tokens in ${seconds.toFixed(1)} s${start}${cut}`;
      }
    }
    history.push({ role: "assistant", content: result.text });
    side.querySelector("h2").textContent = result.model;
    offer(side, result, history.slice(0, -1), labels);
  } catch (fault) {
    if (fault.name === "AbortError") facts.textContent = "Stopped.";
    else { facts.textContent = `No answer: ${fault.message}.`; facts.classList.add("wrong"); }
    history.pop(); // the question that was not answered
  } finally {
    said.classList.remove("waiting");
  }
}

// The correction of a choice is another choice.
function labelField(field, labels) {
  const select = document.createElement("select");
  select.name = field.name;
  select.append(new Option(""), ...labels.map((label) => new Option(label)));
  field.replaceWith(select);
}

function offer(side, result, messages, labels) {
  if (!talk.dataset.judge) return;
  const judge = side.querySelector(".judge");
  const kept = side.querySelector(".kept");
  const form = side.querySelector("form");
  let verdict = "";
  if (labels.length) labelField(form.correction, labels);
  judge.hidden = false;
  async function keep() {
    if (form.person.value.trim() && !form.consented.checked) {
      kept.textContent = "Not kept: tick that this person consented, or leave the person out.";
      return;
    }
    const response = await fetch("/v1/feedback", {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({
        id: result.id, model: result.model, verdict: verdict, messages: messages,
        answer: result.text, correction: form.correction.value || null,
        comment: form.comment.value || null, person: form.person.value.trim() || null,
        consented: form.consented.checked,
      }),
    });
    if (response.ok) kept.textContent = "Kept at this institution.";
    else kept.textContent = `Not kept: ${(await response.json()).error.message}.`;
  }
  function press(which) {
    verdict = which;
    side.querySelector(".up").setAttribute("aria-pressed", String(which === "up"));
    side.querySelector(".down").setAttribute("aria-pressed", String(which === "down"));
  }
  side.querySelector(".up").addEventListener("click", () => { press("up"); keep(); });
  side.querySelector(".down").addEventListener("click", () => { press("down"); keep(); });
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    if (!verdict) press("down");
    keep();
  });
}

by("ask").addEventListener("submit", async (event) => {
  event.preventDefault();
  const text = by("question").value.trim();
  if (!text || running) return;
  const turn = copy("turn");
  turn.querySelector(".asked").textContent = text;
  talk.append(turn);
  by("question").value = "";
  running = new AbortController();
  by("stop").hidden = false;
  by("send").disabled = true;
  const labels = among();
  const answers = chosen().map((model) => {
    const side = copy("side");
    side.querySelector("h2").textContent = model;
    turn.querySelector(".sides").append(side);
    if (!histories.has(model)) histories.set(model, []);
    histories.get(model).push({ role: "user", content: text });
    return answer(side, model, labels, running.signal);
  });
  turn.scrollIntoView({ block: "nearest" });
  await Promise.all(answers);
  running = null;
  by("stop").hidden = true;
  by("send").disabled = false;
  by("question").focus();
});

by("question").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    by("ask").requestSubmit();
  }
});
for (const id of ["first", "second"]) by(id) && by(id).addEventListener("change", showLabels);
showLabels();
by("stop").addEventListener("click", () => running && running.abort());
by("clear").addEventListener("click", () => {
  if (running) running.abort();
  histories.clear();
  talk.replaceChildren();
  by("question").focus();
});
