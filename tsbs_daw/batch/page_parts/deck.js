// Playback controls of a page: the player, its dock at the foot of the page, and the lanes of the open song.

/** Base class of a page. A subclass has `choose(song, jump)`, which opens a song and sets `chosen`. */
class Deck {
  constructor() {
    this.chosen = null;
    this.gallery = new Gallery();
    this.player = new Player();
    this.dock();
    this.player.addEventListener('change', () => this.playerChanged());
  }

  play(song) {
    if (song !== this.chosen) this.choose(song);
    this.player.toggle(song);
  }

  /** Move to a position and play from there; with `play` false, only move if the song is loaded. */
  goTo(song, atS, play = true) {
    if (song !== this.chosen) this.choose(song);
    if (song !== this.player.song || play) this.player.play(song, Math.max(0, atS));
    else this.player.seek(atS);
  }

  mix(song, file, what) {
    file[what] = !file[what];
    if (this.player.song === song) this.player.mix();
    this.showMix(song);
  }

  showMix(song) {
    for (const { file, lane, body } of song.laneElements ?? []) {
      for (const what of ['mute', 'solo'])
        lane.querySelector(`.${what}`).setAttribute('aria-pressed', String(file[what]));
      body.classList.toggle('unheard', !heard(song, file));
      const trouble = body.querySelector('.trouble');
      trouble.hidden = !file.broken;
      trouble.textContent = file.broken ? `This file ${file.trouble}.` : '';
    }
    if (song.laneElements) this.showTransport(song);
  }

  dock() {
    find('dock-play').addEventListener('click', () => this.player.toggle());
    find('dock-song').addEventListener('click', () => this.choose(this.player.song, true));
    find('dock-seek').addEventListener('input', () => this.player.seek(Number(find('dock-seek').value)));
  }

  playerChanged() {
    const { song, playing } = this.player;
    if (this.sounding && this.sounding !== song) this.showPlaying(this.sounding, false);
    this.sounding = song;
    if (this.chosen) this.showMix(this.chosen);
    find('dock').hidden = !song;
    document.body.classList.toggle('docked', Boolean(song));
    if (!song) return;
    this.showPlaying(song, playing);
    find('dock-play').classList.toggle('on', playing);
    find('dock-play').setAttribute('aria-label', playing ? 'Pause' : 'Play');
    find('dock-song').replaceChildren(name(song.title));
    find('dock-seek').max = this.player.length;
    this.follow();
  }

  showPlaying(song, playing) {
    song.playButton.classList.toggle('on', playing);
    song.playButton.setAttribute('aria-label', `${playing ? 'Pause' : 'Play'} ${shown(song.title)}`);
    song.element.classList.toggle('loaded', song === this.player.song);
    for (const head of [song.playhead, song.smallPlayhead]) if (head) head.hidden = song !== this.player.song;
  }

  /** Update everything that shows the position, on every frame while a song plays. */
  follow() {
    cancelAnimationFrame(this.frame);
    const { song, playing, position, length } = this.player;
    if (!song) return;
    const left = `${length ? (100 * position) / length : 0}%`;
    for (const head of [song.playhead, song.smallPlayhead]) head?.style.setProperty('left', left);
    find('dock-time').textContent = `${clock(Math.floor(position))} / ${clock(length)}`;
    if (document.activeElement !== find('dock-seek') || playing) find('dock-seek').value = position;
    find('dock-seek').setAttribute('aria-valuetext', `${clock(position)} of ${clock(length)}`);
    song.slider?.setAttribute('aria-valuenow', Math.round(position));
    song.slider?.setAttribute('aria-valuetext', `${clock(position)} of ${clock(length)}`);
    if (playing) this.frame = requestAnimationFrame(() => this.follow());
  }

  /** Switch between the stems and the original song, at the same position. */
  compare(song) {
    if (!original(song)) return;
    song.comparing = !song.comparing;
    if (this.player.song === song) this.player.mix();
    this.showMix(song);
  }

  /** Switch the loop on or off. Initially, the loop is the current section, or the whole song. */
  toggleLoop(song) {
    const here = this.place(song);
    const part = song.sections.find(([from, to]) => from <= here && here < to);
    song.loop ??= { from: part?.[0] ?? 0, to: part?.[1] ?? song.durationS ?? 0, on: false };
    song.loop.on = !song.loop.on;
    this.showMix(song);
  }

  /** Start ("from") or end ("to") the loop at the position. A loop that is too short extends to the song's edge. */
  setLoop(song, edge) {
    const loop = { from: 0, to: song.durationS ?? 0, ...song.loop, on: true, [edge]: this.place(song) };
    if (loop.to - loop.from < SHORTEST_LOOP_S) {
      if (edge === 'from') loop.to = song.durationS ?? 0;
      else loop.from = 0;
    }
    if (loop.to - loop.from >= SHORTEST_LOOP_S) song.loop = loop;
    if (edge === 'to' && this.player.playing && this.player.song === song) this.player.seek(song.loop?.from ?? 0);
    this.showMix(song);
  }

  place(song) {
    return this.player.song === song ? this.player.position : 0;
  }

  showTransport(song) {
    const { loop, tools } = song;
    if (!tools) return;
    tools.loop.setAttribute('aria-pressed', String(Boolean(loop?.on)));
    tools.compare?.setAttribute('aria-pressed', String(Boolean(song.comparing)));
    tools.words.textContent = loop?.on ? `${clock(loop.from)} to ${clock(loop.to)}` : '';
    song.loopMark.hidden = !loop?.on;
    if (!loop?.on) return;
    const share = (seconds) => `${(100 * seconds) / (song.durationS || 1)}%`;
    song.loopMark.style.setProperty('left', share(loop.from));
    song.loopMark.style.setProperty('width', share(loop.to - loop.from));
  }
}

const SHORTEST_LOOP_S = 0.5;

/** The original song among a song's files, if it can be played. */
const original = (song) => song.files.find((file) => file.kind === 'source' && !file.problem);

/** Reset mute and solo: the stems are heard or, if there are none, the outputs. */
function resetMix(song) {
  const stems = song.files.some((file) => file.kind === 'stem');
  for (const file of song.files) [file.mute, file.solo] = [file.kind !== (stems ? 'stem' : 'output'), false];
  if (song.files.length && song.files.every((file) => file.mute)) song.files[0].mute = false;
}

/** The controls above the lanes: loop, and comparison with the original song. */
function transport(song, app) {
  const tool = (text, label, onclick, pressed = null) =>
    el('button', { type: 'button', class: 'tool', text, title: label, 'aria-label': label, 'aria-pressed': pressed, onclick });
  song.tools = {
    loop: tool('Loop', 'Loop (L)', () => app.toggleLoop(song), 'false'),
    compare: original(song)
      ? tool('A/B', 'Hear the song itself instead of its stems (B)', () => app.compare(song), 'false')
      : null,
    words: el('span', { class: 'loop-words', role: 'status' }),
  };
  return [
    song.tools.compare,
    song.tools.loop,
    tool('[', 'Loop from here', () => app.setLoop(song, 'from')),
    tool(']', 'Loop up to here', () => app.setLoop(song, 'to')),
    song.tools.words,
  ].filter(Boolean);
}

/** The action of a key for a song that plays or is open, as a function; null or undefined if it has none. */
function deckKey(app, song, key) {
  const { player } = app;
  if (key === 'ArrowLeft' || key === 'ArrowRight')
    return player.song && (() => player.seek(player.position + (key === 'ArrowLeft' ? -5 : 5)));
  const act = {
    b: () => app.compare(song),
    l: () => app.toggleLoop(song),
    '[': () => app.setLoop(song, 'from'),
    ']': () => app.setLoop(song, 'to'),
  }[key.toLowerCase()];
  if (act) return song.tools && act;
  const file = /^[1-9]$/.test(key) && song.files[Number(key) - 1];
  return file && !file.problem ? () => app.mix(song, file, 'solo') : null;
}
