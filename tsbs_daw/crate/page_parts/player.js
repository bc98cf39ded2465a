// Playing the files of a song together.
//
// A page from a file:// address may neither read a file's bytes nor send a media element through Web Audio: browsers
// hold both to be another origin. So each stem is an <audio> element of its own, and what keeps them together is:
//   cue:   all are paused, moved to one place, waited for, and started in one breath; browsers then give them to the
//          sound card in the same buffer
//   nudge: a stem that is off by less than CUE_S plays up to 2 % faster or slower until it is back
//   again: one that is further off, because a disk was slow, has all of them cued again, once in a while

const CUE_S = 0.04;
const CLOSE_S = 0.0003;
const CUE_PAUSE_MS = 3000;
const WATCH_MS = 300;
const PATIENCE_MS = 8000;

class Player extends EventTarget {
  constructor() {
    super();
    this.song = null;
    this.playing = false;
    this.turn = 0;
    this.cuedAt = 0;
    this.home = document.body.appendChild(el('div', { hidden: true, id: 'sounds' }));
    setInterval(() => this.playing && !this.cueing && this.align(), WATCH_MS);
  }

  /** Play a song from a place; without one, from where it was. */
  play(song, atS = null) {
    if (song !== this.song) this.load(song);
    return this.cue(atS ?? this.position);
  }

  pause() {
    this.turn += 1;
    this.cueing = false;
    this.place = this.position;
    this.playing = false;
    this.sounds().forEach((audio) => audio.pause());
    this.tell();
  }

  toggle(song) {
    return this.playing && (!song || song === this.song) ? this.pause() : this.play(song ?? this.song);
  }

  /** Go to a place of the song that is loaded; it goes on playing if it did. */
  seek(atS) {
    const place = Math.min(Math.max(0, atS), Math.max(0, this.length - 0.05));
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
    else this.sounds().forEach((audio) => (audio.muted = !heard(this.song, audio.file)));
    this.tell();
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
      file.audio.file = file;
      file.audio.preservesPitch = false; // a nudge shall cost nothing
      file.audio.addEventListener('error', () => this.broke(file));
      file.audio.addEventListener('ended', () => this.ended());
      this.home.append(file.audio);
    }
    return this.sounds().filter((audio) => !audio.file.broken);
  }

  async cue(atS) {
    const turn = (this.turn += 1);
    this.place = atS >= this.length - 0.05 ? 0 : atS;
    this.playing = this.cueing = true;
    const sounds = this.needed();
    for (const audio of sounds) {
      audio.pause();
      audio.playbackRate = 1;
      audio.muted = !heard(this.song, audio.file);
    }
    this.tell();
    await Promise.all(sounds.map((audio) => ready(audio, this.place)));
    if (turn !== this.turn) return;
    const able = sounds.filter((audio) => !audio.file.broken);
    if (!able.length) return this.pause();
    // In one breath, with nothing in between.
    const starts = able.map((audio) => audio.play());
    this.cuedAt = performance.now();
    this.cueing = false;
    const refused = (await Promise.allSettled(starts)).find((one) => one.reason?.name === 'NotAllowedError');
    if (refused && turn === this.turn) this.pause();
    this.tell();
  }

  align() {
    const lead = this.lead();
    const others = this.sounds().filter((audio) => audio !== lead && !audio.file.broken && !audio.ended);
    if (!lead || lead.seeking) return;
    const now = lead.currentTime;
    const off = others.map((audio) => audio.currentTime - now);
    const far = off.some((seconds) => Math.abs(seconds) > CUE_S);
    if (far && performance.now() - this.cuedAt > CUE_PAUSE_MS) {
      this.cue(now);
      return;
    }
    others.forEach((audio, i) => {
      const rate = Math.abs(off[i]) < CLOSE_S ? 1 : 1 - Math.max(-0.02, Math.min(0.02, 2 * off[i]));
      if (audio.playbackRate !== rate) audio.playbackRate = rate;
    });
  }

  broke(file) {
    if (!file.audio) return;
    file.broken = true;
    const unsupported = file.audio.error?.code === MediaError.MEDIA_ERR_SRC_NOT_SUPPORTED;
    file.trouble = unsupported ? 'is missing, or of a kind that this browser cannot play' : 'cannot be played to its end';
    this.tell();
  }

  ended() {
    if (!this.playing || this.lead()) return;
    this.pause();
    this.place = 0;
    this.tell();
  }

  tell() {
    this.dispatchEvent(new Event('change'));
  }
}

/** As on a mixer: with any solo, those; else what is not muted. */
function heard(song, file) {
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
