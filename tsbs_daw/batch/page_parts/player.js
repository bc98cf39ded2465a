// Playing the files of a song together.
//
// A page from a file:// address may neither read a file's bytes nor send a media element through Web Audio: browsers
// hold both to be another origin. So each stem is an <audio> element of its own, and what keeps them together is:
//   cue:   all are paused, moved to one place, waited for, and started in one breath; a browser that is not too busy
//          then gives them to the sound card in the same buffer
//   nudge: a stem that is found to be off by less than FAR_S plays 2 % faster or slower for as long as that takes
//   fetch: one that is further off hurries back unheard; if that does not help, all are cued again
//   wait:  in Firefox every change of speed shifts the sound by 20 to 40 ms, of which its clock knows nothing; left
//          alone, its clocks tell the truth and do not drift. There, whoever is ahead pauses until the last one is there
// Clocks of elements are read several times before anything is done: some browsers' tick unevenly.

const CLOSE_S = 0.0003;
const MOST_PATIENCE_S = 0.02;
const FAR_S = 0.04;
const LOST_S = 1.5;
const NUDGE = 0.02;
const FETCH = 0.5;
const FETCHES = 4;
const READINGS = 3;
const WAITS = 'mozInnerScreenX' in window; // Firefox
const WAIT_CLOSE_S = 0.004;
const WAIT_MOST_PATIENCE_S = 0.012;
const WAIT_READINGS = 9;
const WAIT_SETTLE_MS = 300;
const WATCH_MS = 120;
const PATIENCE_MS = 8000;
const END_S = 0.05; // nothing is to be heard of a song after this much before its end

class Player extends EventTarget {
  constructor() {
    super();
    this.song = null;
    this.playing = false;
    this.turn = 0;
    this.home = document.body.appendChild(el('div', { hidden: true, id: 'sounds' }));
    setInterval(() => {
      if (!this.playing || this.cueing) return;
      this.align();
      this.turnBack();
    }, WATCH_MS);
  }

  /** Play a song from a place; without one, from where it was, or again if it was at its end. */
  play(song, atS = null) {
    if (song !== this.song) this.load(song);
    const again = this.position > this.length - 2 * END_S;
    return this.cue(atS !== null ? this.within(atS) : again ? 0 : this.position);
  }

  pause() {
    this.turn += 1;
    this.cueing = false;
    this.place = this.position;
    this.playing = false;
    for (const audio of this.sounds()) {
      audio.pause();
      this.settle(audio);
    }
    this.tell();
  }

  toggle(song) {
    return this.playing && (!song || song === this.song) ? this.pause() : this.play(song ?? this.song);
  }

  /** Go to a place of the song that is loaded; it goes on playing if it did. */
  seek(atS) {
    const place = this.within(atS);
    if (this.playing) return this.cue(place);
    this.place = place;
    this.tell();
    return Promise.resolve();
  }

  /** Mute or solo has changed: be heard so. A file that nobody wanted to hear before joins in. */
  mix() {
    if (!this.song) return;
    const joins = this.song.files.some((file) => heard(this.song, file) && !file.problem && !file.audio);
    if (joins && this.playing) this.cue(this.position);
    else this.sounds().forEach((audio) => this.hear(audio));
    this.tell();
  }

  /** Shortly before the end of a loop, have its beginning cued at its end. Who has gone past it plays on. */
  turnBack() {
    const { loop } = this.song;
    const left = loop?.on ? loop.to - this.position : -1;
    if (left < 0 || left > (2 * WATCH_MS) / 1000 || this.turning === this.turn) return;
    const turn = (this.turning = this.turn);
    setTimeout(() => turn === this.turn && loop.on && this.cue(this.within(loop.from)), 1000 * left);
  }

  /** The place, or the nearest at which the song still sounds. */
  within(atS) {
    return Math.min(Math.max(0, atS), Math.max(0, this.length - END_S));
  }

  get position() {
    const lead = this.playing && !this.cueing ? this.lead() : null;
    return lead ? lead.currentTime : (this.place ?? 0);
  }

  get length() {
    return this.song?.durationS ?? this.lead()?.duration ?? 0;
  }

  /** The element whose clock is the song's. */
  lead() {
    return this.sounds().find((audio) => !audio.file.broken && !audio.ended) ?? null;
  }

  sounds() {
    return [...this.home.children];
  }

  load(song) {
    this.pause();
    for (const audio of this.sounds()) {
      audio.file.audio = null;
      audio.removeAttribute('src');
      audio.load();
      audio.remove();
    }
    this.song = song;
    this.place = 0;
  }

  /** The elements of all files that are heard, made when they are first needed. */
  needed() {
    for (const file of this.song.files) {
      if (file.audio || file.problem || !heard(this.song, file)) continue;
      file.audio = el('audio', { src: file.url, preload: 'auto', 'data-name': file.name });
      Object.assign(file.audio, { file, readings: [], returning: null, late: 0 });
      file.audio.preservesPitch = false; // a nudge shall cost nothing
      file.audio.addEventListener('error', () => this.broke(file));
      file.audio.addEventListener('ended', () => this.ended());
      this.home.append(file.audio);
    }
    return this.sounds().filter((audio) => !audio.file.broken);
  }

  async cue(atS) {
    const turn = (this.turn += 1);
    this.place = atS;
    this.playing = this.cueing = true;
    const sounds = this.needed();
    for (const audio of sounds) {
      audio.pause();
      Object.assign(audio, { fetches: 0, before: Infinity, waited: false, patience: WAITS ? WAIT_CLOSE_S : CLOSE_S });
      this.settle(audio);
      this.hear(audio);
    }
    this.tell();
    await Promise.all(sounds.map((audio) => ready(audio, this.place)));
    if (turn !== this.turn) return;
    const able = sounds.filter((audio) => !audio.file.broken);
    if (!able.length) return this.pause();
    // In one breath, with nothing in between.
    const starts = able.map((audio) => audio.play());
    this.cueing = false;
    const refused = (await Promise.allSettled(starts)).find((one) => one.reason?.name === 'NotAllowedError');
    if (refused && turn === this.turn) this.pause();
    this.tell();
  }

  /** Bring every element to where most of them are. */
  align() {
    const sounds = this.sounds().filter((audio) => !audio.file.broken && !audio.ended);
    if (sounds.length < 2 || sounds.some((audio) => audio.seeking)) return;
    const places = sounds.map((audio) => audio.currentTime);
    if (WAITS) {
      this.wait(sounds, places);
      return;
    }
    const middle = median(places);
    for (const [i, audio] of sounds.entries()) {
      if (audio.returning) continue;
      audio.readings = [...audio.readings, places[i] - middle].slice(-READINGS);
      if (audio.readings.length < READINGS) continue;
      const off = median(audio.readings);
      const unsure = Math.max(...audio.readings) - Math.min(...audio.readings);
      if (Math.abs(off) > LOST_S || audio.fetches > FETCHES) {
        this.cue(middle);
        return;
      }
      // Where bringing it back does not bring it closer, its clock and its sound disagree: leave small things alone.
      if (Math.abs(off) > Math.abs(audio.before) / 2) audio.patience = Math.min(MOST_PATIENCE_S, 2 * audio.patience);
      audio.before = Infinity;
      if (Math.abs(off) > Math.max(audio.patience, unsure)) this.bring(audio, off);
      else if (Math.abs(off) < FAR_S) audio.fetches = 0;
      this.hear(audio);
    }
  }

  /** Let an element make up for what it is off by, and look again afterwards. */
  bring(audio, off) {
    const far = Math.abs(off) > FAR_S;
    const step = far ? FETCH : NUDGE;
    audio.fetches = far ? audio.fetches + 1 : 0;
    audio.before = off;
    audio.playbackRate = off > 0 ? 1 - step : 1 + step;
    audio.returning = setTimeout(() => this.settle(audio), (1000 * Math.abs(off)) / step);
  }

  /** Let every element that is ahead of the last one pause for as long. */
  wait(sounds, places) {
    if (sounds.some((audio) => audio.returning)) return;
    const last = Math.min(...places);
    for (const [i, audio] of sounds.entries()) audio.readings.push(places[i] - last);
    if (sounds.some((audio) => audio.readings.length < WAIT_READINGS)) return;
    const offs = sounds.map((audio) => median(audio.readings));
    const least = Math.min(...offs);
    for (const [i, audio] of sounds.entries()) {
      const off = offs[i] - least;
      audio.readings = [];
      if (off > LOST_S) {
        this.cue(last);
        return;
      }
      if (audio.waited) {
        audio.late = Math.max(0, audio.late - off / 2);
        audio.patience = Math.min(WAIT_MOST_PATIENCE_S, 1.5 * audio.patience);
        audio.waited = false;
      }
      if (off <= audio.patience) continue;
      audio.waited = true;
      audio.pause();
      audio.returning = setTimeout(() => this.resume(audio), Math.max(0, 1000 * (off - audio.late)));
    }
  }

  /** Let one that has waited play on; its clock is believed again after a moment. */
  resume(audio) {
    audio.play().catch(() => {}); // what is wrong with it, its own events say
    audio.returning = setTimeout(() => this.settle(audio), WAIT_SETTLE_MS);
  }

  settle(audio) {
    clearTimeout(audio.returning);
    audio.returning = null;
    audio.readings = [];
    if (audio.playbackRate !== 1) audio.playbackRate = 1;
  }

  /** Mute what is muted, and what is just being fetched. */
  hear(audio) {
    const muted = !heard(this.song, audio.file) || audio.fetches > 0;
    if (audio.muted !== muted) audio.muted = muted;
  }

  broke(file) {
    if (!file.audio) return;
    file.broken = true;
    const unsupported = file.audio.error?.code === MediaError.MEDIA_ERR_SRC_NOT_SUPPORTED;
    file.trouble = unsupported
      ? 'is missing, or of a kind that this browser cannot play'
      : 'cannot be played to its end';
    this.tell();
  }

  ended() {
    if (!this.playing || this.lead()) return;
    const { loop } = this.song;
    if (loop?.on && loop.to > this.length - 2 * END_S) {
      this.cue(this.within(loop.from));
      return;
    }
    this.pause();
    this.place = 0;
    this.tell();
  }

  tell() {
    this.dispatchEvent(new Event('change'));
  }
}

function median(values) {
  return [...values].sort((a, b) => a - b)[(values.length - 1) >> 1];
}

/** As on a mixer: with any solo, those; else what is not muted. While it is compared, the song itself alone. */
function heard(song, file) {
  if (song.comparing) return file.kind === 'source';
  return song.files.some((one) => one.solo) ? file.solo : !file.mute;
}

/** Wait until an element can play from a place at once. Resolves also if it never can. */
function ready(audio, atS) {
  return new Promise((resolve) => {
    const names = ['seeked', 'canplay', 'canplaythrough', 'loadedmetadata', 'error'];
    let moved = false;
    let enough = 4; // HAVE_ENOUGH_DATA; after a while, what there is will do
    const look = () => {
      if (audio.readyState >= 1 && !moved) {
        moved = true;
        if (Math.abs(audio.currentTime - atS) > 1e-4) audio.currentTime = atS;
      }
      if (audio.error || (moved && !audio.seeking && audio.readyState >= enough)) done();
    };
    const done = () => {
      clearTimeout(limit);
      clearTimeout(relax);
      names.forEach((one) => audio.removeEventListener(one, look));
      resolve();
    };
    const limit = setTimeout(done, PATIENCE_MS);
    const relax = setTimeout(() => {
      enough = 3;
      look();
    }, PATIENCE_MS / 4);
    names.forEach((one) => audio.addEventListener(one, look));
    look();
  });
}
