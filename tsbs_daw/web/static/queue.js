// The list of jobs. Each job keeps its element, so that the focus stays where it is while others come and go.

const LIVE = ['running', 'queued', 'submitted'];
const JOB_STATES = {
  running: 'Running',
  queued: 'Waiting',
  submitted: 'Waiting for a daemon',
  done: 'Done',
  duplicate: 'Done before',
  failed: 'Failed',
  dead: 'Gave up',
  cancelled: 'Cancelled',
  superseded: 'Replaced by a newer file',
};

class QueueView {
  constructor(feed) {
    this.feed = feed;
    this.items = new Map();
    feed.addEventListener('change', () => this.show());
    setInterval(() => this.showTimes(), 1000);
  }

  show() {
    const now = this.feed.now;
    if (!now) return;
    const ids = new Set(now.jobs.map((job) => job.id));
    for (const [id, item] of this.items) {
      if (ids.has(id)) continue;
      item.element.remove();
      this.items.delete(id);
    }
    const live = now.jobs.filter((job) => LIVE.includes(job.state));
    const ended = now.jobs.filter((job) => !LIVE.includes(job.state));
    this.arrange(find('live'), live);
    this.arrange(find('ended'), ended);
    find('live-none').hidden = live.length > 0;
    find('ended-none').hidden = ended.length > 0;
    const total = Object.entries(now.counts).reduce((sum, [state, n]) => sum + (LIVE.includes(state) ? 0 : n), 0);
    const hidden = total - ended.length;
    find('ended-more').hidden = hidden <= 0;
    find('ended-more').textContent = `${many(Math.max(hidden, 0), 'older job')}: \`tsbs-daw jobs list --limit 0\` shows them.`;
    this.summarize(now, live);
  }

  summarize(now, live) {
    const running = live.filter((job) => job.state === 'running').length;
    const waiting = live.length - running + now.more;
    const words = [
      this.feed.connected ? '' : 'Not connected; trying again.',
      now.trouble ? shown(now.trouble) : '',
      now.daemon ? '' : 'No daemon is running; jobs wait until `tsbs-daw watch` is started.',
      `${running} running, ${waiting} waiting.`,
    ];
    const text = words.filter(Boolean).join(' ');
    if (find('summary').textContent !== text) find('summary').textContent = text;
  }

  arrange(list, jobs) {
    const focused = document.activeElement;
    let place = list.firstElementChild;
    jobs.forEach((job, number) => {
      const item = this.item(job, number, jobs);
      if (item.element === place) place = place.nextElementSibling;
      else list.insertBefore(item.element, place);
    });
    if (focused !== document.activeElement && focused?.isConnected) focused.focus({ preventScroll: true });
  }

  /** Create or update the element of a job. */
  item(job, number, jobs) {
    let item = this.items.get(job.id);
    if (!item) this.items.set(job.id, (item = this.make(job)));
    const before = item.job;
    item.job = job;
    if (before && before.state !== job.state && !LIVE.includes(job.state)) {
      say(`${shown(job.song)}: ${JOB_STATES[job.state] ?? job.state}. ${shown(job.error)}`);
    }
    const waits = job.state === 'queued';
    const first = !jobs[number - 1] || jobs[number - 1].state !== 'queued';
    const last = !jobs[number + 1] || jobs[number + 1].state !== 'queued';
    const key = JSON.stringify([job, waits && first, waits && last]);
    if (item.key === key) return item;
    item.key = key;
    item.element.className = `job ${job.state}`;
    item.title.replaceChildren(this.title(job));
    item.bar.hidden = job.state !== 'running';
    item.bar.value = job.fraction;
    item.bar.setAttribute('aria-label', `Progress of ${shown(job.song)}`);
    const error = job.error && job.state !== 'cancelled' ? [job.error] : [];
    const words = [...error, ...job.warnings, ...job.afterwards];
    item.why.hidden = !words.length;
    item.why.className = LIVE.includes(job.state) || !job.error ? 'why note' : 'why';
    item.why.textContent = words.map(shown).join(' ');
    this.buttons(item, job, waits, first, last);
    this.showTime(item);
    return item;
  }

  make(job) {
    const title = el('span', { class: 'title' });
    const sub = el('span', { class: 'sub' });
    const bar = el('progress', { max: 1, value: 0 });
    const why = el('p', { class: 'why', hidden: true });
    const acts = el('div', { class: 'acts', role: 'group', 'aria-label': `Actions for ${shown(job.song)}` });
    const element = el('li', { class: 'job' }, el('div', { class: 'what' }, title, sub), acts, bar, why);
    return { element, title, sub, bar, why, acts, made: new Map() };
  }

  title(job) {
    return job.playable ? el('a', { class: 'title', href: `#song/${job.id}` }, name(job.song)) : name(job.song);
  }

  /** Add and remove buttons with the state; a button that stays is the same element, so it keeps the focus. */
  buttons(item, job, waits, first, last) {
    const post = (act, body, done) => (event) =>
      attempt(event.currentTarget, () => ask(`/api/jobs/${job.id}/${act}`, { method: 'POST', body }), done);
    const live = LIVE.includes(job.state);
    const wanted = [
      waits && ['first', '⤒', `Run ${shown(job.song)} first`, post('move', { to: 'first' }, 'Moved to the front.'), first],
      waits && ['earlier', '↑', `Run ${shown(job.song)} earlier`, post('move', { to: 'earlier' }, 'Moved up.'), first],
      waits && ['later', '↓', `Run ${shown(job.song)} later`, post('move', { to: 'later' }, 'Moved down.'), last],
      live && ['cancel', job.cancelling ? 'Cancelling' : 'Cancel', `Cancel ${shown(job.song)}`, post('cancel', {}, 'Cancelling.'), job.cancelling],
      // A file that was dropped onto the page is removed from the spool when it is done.
      !live && !(job.origin === 'web' && job.state === 'done') && ['retry', 'Retry', `Retry ${shown(job.song)}`, post('retry', {}, 'Queued again.'), false],
    ].filter(Boolean);
    const names = new Set(wanted.map(([kind]) => kind));
    for (const [kind, button] of item.made) {
      if (names.has(kind)) continue;
      button.remove();
      item.made.delete(kind);
    }
    for (const [kind, text, label, onclick, disabled] of wanted) {
      let button = item.made.get(kind);
      if (!button) {
        button = el('button', { type: 'button', title: label, 'aria-label': label, onclick });
        item.made.set(kind, button);
        item.acts.append(button);
      }
      button.textContent = text;
      button.disabled = Boolean(disabled);
    }
  }

  showTimes() {
    for (const item of this.items.values()) this.showTime(item);
  }

  showTime(item) {
    const { job } = item;
    const words = [JOB_STATES[job.state] ?? job.state];
    if (job.state === 'running') words.push(percent(job.fraction), shown(job.message), timeLeft(job));
    else if (job.finished) words.push(ago(job.finished));
    else words.push(`since ${ago(job.created)}`);
    if (job.preset && job.preset !== 'none') words.push(`preset ${shown(job.preset)}`);
    if (job.attempts > 1 && LIVE.includes(job.state)) words.push(`attempt ${job.attempts}`);
    words.push(shown(job.source));
    const text = words.filter(Boolean).join(' · ');
    if (item.sub.textContent !== text) item.sub.textContent = text;
  }
}

/** "about 2:10 left", extrapolated from the time taken so far; nothing while too little is done. */
function timeLeft(job) {
  const took = Date.now() / 1000 - (job.started ?? Infinity);
  if (!(took > 3) || job.fraction < 0.02) return '';
  return `about ${clock((took / job.fraction) * (1 - job.fraction))} left`;
}

function ago(unixS) {
  const seconds = Math.max(0, Date.now() / 1000 - unixS);
  if (seconds < 60) return 'just now';
  if (seconds < 5400) return `${Math.round(seconds / 60)} min ago`;
  if (seconds < 129600) return `${Math.round(seconds / 3600)} h ago`;
  return new Date(unixS * 1000).toLocaleDateString('en-GB', { dateStyle: 'medium' });
}
