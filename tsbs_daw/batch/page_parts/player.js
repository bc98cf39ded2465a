// Synchronised playback of the files of a song.
//
// A page from a file:// address may neither read a file's bytes nor send a media element through Web Audio, because
// browsers treat every file as a different origin. So each stem is an <audio> element of its own, kept in sync by:
//   cue:   all elements are paused, moved to one position, buffered, and started in one synchronous step; a browser
//          that is not too busy then passes them to the sound card in the same buffer
//   nudge: an element that is off by less than FAR_S plays 2 % faster or slower until it has caught up
//   fetch: an element that is further off catches up faster, muted; if that does not help, all are cued again
//   wait:  in Firefox, every change of speed shifts the audio by 20 to 40 ms, which currentTime does not reflect; at
//          constant speed, currentTime is correct and does not drift. There, elements that are ahead pause instead
// currentTime is read several times before any correction, because it advances unevenly in some browsers.

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
const END_S = 0.05; // playback never starts closer to the end of a song

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

  /** Play a song from a position; by default, from the current one, or from the start if the song was at its end. */
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

  /** Move to a position of the loaded song. If it was playing, it continues from there. */
  seek(atS) {
    const place = this.within(atS);
    if (this.playing) return this.cue(place);
    this.place = place;
    this.tell();
    return Promise.resolve();
  }

  /** Apply changes of mute and solo. A file that is heard for the first time is loaded and joins in. */
  mix() {
    if (!this.song) return;
    const joins = this.song.files.some((file) => heard(this.song, file) && !file.problem && !file.audio);
    if (joins && this.playing) this.cue(this.position);
    else this.sounds().forEach((audio) => this.hear(audio));
    this.tell();
  }

  /** Shortly before the end of a loop, schedule the jump to its start. Past the end of the loop, playback continues. */
  turnBack() {
    const { loop } = this.song;
    const left = loop?.on ? loop.to - this.position : -1;
    if (left < 0 || left > (2 * WATCH_MS) / 1000 || this.turning === this.turn) return;
    const turn = (this.turning = this.turn);
    setTimeout(() => turn === this.turn && loop.on && this.cue(this.within(loop.from)), 1000 * left);
  }

  /** Limit a position to the part of the song that can be played. */
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

  /** The element whose currentTime is the song's position. */
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

  /** Return the elements of all files that were heard so far. An element is created when its file is first heard. */
  needed() {
    for (const file of this.song.files) {
      if (file.audio || file.problem || !heard(this.song, file)) continue;
      file.audio = el('audio', { src: file.url, preload: 'auto', 'data-name': file.name });
      Object.assign(file.audio, { file, readings: [], returning: null, late: 0 });
      file.audio.preservesPitch = false; // avoids time stretching during a nudge
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
    // Start all elements in one synchronous step.
    const starts = able.map((audio) => audio.play());
    this.cueing = false;
    const refused = (await Promise.allSettled(starts)).find((one) => one.reason?.name === 'NotAllowedError');
    if (refused && turn === this.turn) this.pause();
    this.tell();
  }

  /** Move every element towards the median position. */
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
      // If a correction did not help, currentTime does not match the audio: tolerate larger offsets.
      if (Math.abs(off) > Math.abs(audio.before) / 2) audio.patience = Math.min(MOST_PATIENCE_S, 2 * audio.patience);
      audio.before = Infinity;
      if (Math.abs(off) > Math.max(audio.patience, unsure)) this.bring(audio, off);
      else if (Math.abs(off) < FAR_S) audio.fetches = 0;
      this.hear(audio);
    }
  }

  /** Change an element's speed until its offset is made up for. */
  bring(audio, off) {
    const far = Math.abs(off) > FAR_S;
    const step = far ? FETCH : NUDGE;
    audio.fetches = far ? audio.fetches + 1 : 0;
    audio.before = off;
    audio.playbackRate = off > 0 ? 1 - step : 1 + step;
    audio.returning = setTimeout(() => this.settle(audio), (1000 * Math.abs(off)) / step);
  }

  /** Pause every element that is ahead, until the last one has caught up. */
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

  /** Resume an element that has waited. Its currentTime is used again once it has settled. */
  resume(audio) {
    audio.play().catch(() => {}); // errors are handled in its events
    audio.returning = setTimeout(() => this.settle(audio), WAIT_SETTLE_MS);
  }

  settle(audio) {
    clearTimeout(audio.returning);
    audio.returning = null;
    audio.readings = [];
    if (audio.playbackRate !== 1) audio.playbackRate = 1;
  }

  /** Mute an element if its file is muted, or while it catches up. */
  hear(audio) {
    const muted = !heard(this.song, audio.file) || audio.fetches > 0;
    if (audio.muted !== muted) audio.muted = muted;
  }

  broke(file) {
    if (!file.audio) return;
    file.broken = true;
    const unsupported = file.audio.error?.code === MediaError.MEDIA_ERR_SRC_NOT_SUPPORTED;
    file.trouble = unsupported
      ? 'is missing, or has a format that this browser cannot play'
      : 'could not be played to the end';
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

/** Return whether a file is heard, as on a mixer: if any file is solo, only those, otherwise all that are not muted.
 * During a comparison, only the original song. */
function heard(song, file) {
  if (song.comparing) return file.kind === 'source';
  return song.files.some((one) => one.solo) ? file.solo : !file.mute;
}

/** Wait until an element is ready to play from a position. Also resolves if it fails or takes too long. */
function ready(audio, atS) {
  return new Promise((resolve) => {
    const names = ['seeked', 'canplay', 'canplaythrough', 'loadedmetadata', 'error'];
    let moved = false;
    let enough = 4; // HAVE_ENOUGH_DATA; after a while, HAVE_FUTURE_DATA suffices
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
