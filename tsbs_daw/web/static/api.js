// Asking the server, and hearing from it.

/** JSON from the server. Throws an Error whose message is the server's sentence. */
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
    throw new Error('The page does not reach tsbs-daw; is `tsbs-daw web` still running?');
  }
  const found = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Error(found.error ?? `tsbs-daw answers with an error (${answer.status}).`);
  return found;
}

/** Say something once, above everything; an empty text takes it away. */
function notice(text) {
  if (find('notice').textContent !== text) find('notice').textContent = text;
  find('notice').hidden = !text;
}

/** Say something to those who listen to the page. */
function say(text) {
  find('said').textContent = text;
}

/** Do what a button asks for; a refusal is said in the server's own sentence. */
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

/** How the queue stands, kept up to date by server-sent events; `change` events tell of news. */
class Feed extends EventTarget {
  constructor() {
    super();
    this.now = null;
    this.connected = false;
    // A hidden page lets go of its connection: a browser has only six for all tabs, and players need them.
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
      // After an answer that is no stream, a browser does not try again by itself.
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
