// Requests to the server, and its events.

/** Request JSON from the server. Throws an Error with the server's message. */
async function ask(url, { method = 'GET', body } = {}) {
  const options = { method, cache: 'no-store', redirect: 'error' };
  if (method === 'POST') {
    options.headers = { 'Content-Type': 'application/json' };
    options.body = JSON.stringify(body ?? {});
  }
  let answer;
  try {
    answer = await fetch(url, options);
  } catch {
    throw new Error('The page cannot reach tsbs-daw; is `tsbs-daw web` still running?');
  }
  const found = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Error(found.error ?? `tsbs-daw answered with an error (${answer.status}).`);
  return found;
}

/** Show a message above everything else; an empty text hides it. */
function notice(text) {
  if (find('notice').textContent !== text) find('notice').textContent = text;
  find('notice').hidden = !text;
}

/** Announce something to users of a screen reader. */
function say(text) {
  find('said').textContent = text;
}

/** Run the action of a button; a refusal is shown in the server's words. */
async function attempt(button, work, done = '') {
  if (button) button.disabled = true;
  try {
    await work();
    notice('');
    if (done) say(done);
  } catch (error) {
    notice(error.message);
  } finally {
    if (button) button.disabled = false;
  }
}

/** The state of the queue, kept up to date by server-sent events; dispatches `change` events. */
class Feed extends EventTarget {
  constructor() {
    super();
    this.now = null;
    this.connected = false;
    // A hidden page closes its connection: a browser has only six for all tabs, and players need them.
    document.addEventListener('visibilitychange', () => (document.hidden ? this.close() : this.open()));
    if (!document.hidden) this.open();
  }

  open() {
    this.close();
    const source = (this.source = new EventSource('/api/events'));
    source.addEventListener('open', () => this.connect(true));
    source.addEventListener('all', (event) => this.take(JSON.parse(event.data)));
    source.addEventListener('change', (event) => this.change(JSON.parse(event.data)));
    source.addEventListener('error', () => {
      this.connect(false);
      // After a response that is not a stream, a browser does not reconnect by itself.
      if (source.readyState === EventSource.CLOSED) this.retry = setTimeout(() => this.open(), 2000);
    });
  }

  close() {
    clearTimeout(this.retry);
    this.source?.close();
    this.source = null;
  }

  connect(connected) {
    if (this.connected === connected) return;
    this.connected = connected;
    this.dispatchEvent(new Event('change'));
  }

  take(now) {
    this.now = now;
    this.dispatchEvent(new Event('change'));
  }

  change(news) {
    const known = new Map(this.now.jobs.map((job) => [job.id, job]));
    for (const job of news.jobs) known.set(job.id, job);
    const order = news.order ?? this.now.jobs.map((job) => job.id);
    this.take({ ...news, jobs: order.map((id) => known.get(id)) });
  }
}
