// Waveforms on canvas. Levels come as base64: pairs of bytes, highest sample and RMS, each 255 * sqrt(amplitude).

const levelsOf = new WeakMap();

/** {peak, rms}: Float32Arrays of amplitudes, 0…1; null if the file has no waveform. */
function levels(file) {
  if (!file.levels) return null;
  if (!levelsOf.has(file)) {
    const bytes = atob(file.levels);
    const [peak, rms] = [new Float32Array(bytes.length / 2), new Float32Array(bytes.length / 2)];
    for (let i = 0; i < peak.length; i += 1) {
      peak[i] = (bytes.charCodeAt(2 * i) / 255) ** 2;
      rms[i] = (bytes.charCodeAt(2 * i + 1) / 255) ** 2;
    }
    levelsOf.set(file, { peak, rms });
  }
  return levelsOf.get(file);
}

/** One scale for all files of a song, so that a quiet stem looks quiet. The original song may exceed it. */
function loudest(files) {
  const parts = files.filter((file) => file.kind !== 'source');
  return Math.max(
    1e-4,
    ...(parts.length ? parts : files).map((file) => (levels(file) ? Math.max(...levels(file).peak) : 0)),
  );
}

/** The files that a song's small waveform shows: its stems or, if there are none, outputs or the original. */
function pictured(song) {
  for (const kind of ['stem', 'output', 'source']) {
    const files = song.files.filter((file) => file.kind === kind && file.levels);
    if (files.length) return files;
  }
  return [];
}

/** Size a canvas for the screen, and return its context, in CSS pixels. */
function prepared(canvas) {
  const { clientWidth: width, clientHeight: height } = canvas;
  const ratio = Math.min(2, window.devicePixelRatio || 1);
  canvas.width = Math.round(width * ratio);
  canvas.height = Math.round(height * ratio);
  const context = canvas.getContext('2d');
  context.scale(ratio, ratio);
  return { context, width, height };
}

/** Draw files below one another; `curve` < 1 enlarges quiet passages. */
function drawWaveforms(canvas, files, scale, curve) {
  const { context, width, height } = prepared(canvas);
  if (!width) return;
  const lane = height / Math.max(1, files.length);
  files.forEach((file, number) => {
    const found = levels(file);
    if (!found) return;
    const [middle, reach] = [lane * (number + 0.5), lane * (files.length > 1 ? 0.47 : 0.46)];
    const shape = (source, join) => {
      const tops = new Float32Array(Math.ceil(width));
      for (let x = 0; x < tops.length; x += 1) {
        const from = Math.floor((x / width) * source.length);
        const to = Math.max(from + 1, Math.floor(((x + 1) / width) * source.length));
        let value = 0;
        for (let i = from; i < to && i < source.length; i += 1) value = join(value, source[i]);
        tops[x] = reach * Math.min(1, value / scale) ** curve;
      }
      return tops;
    };
    for (const [source, alpha] of [
      [found.peak, 0.5],
      [found.rms, 1],
    ]) {
      fillShape(context, shape(source, Math.max), middle, file.color, alpha);
    }
  });
}

function fillShape(context, tops, middle, color, alpha) {
  context.globalAlpha = alpha;
  context.fillStyle = color;
  context.beginPath();
  context.moveTo(0, middle);
  tops.forEach((top, x) => context.lineTo(x, middle - top));
  for (let x = tops.length - 1; x >= 0; x -= 1) context.lineTo(x, middle + tops[x]);
  context.closePath();
  context.fill();
  context.globalAlpha = 1;
}

/** Draws canvases when they come into view, and frees their memory when they leave: pages may have a thousand. */
class Gallery {
  constructor() {
    this.draw = new Map();
    this.shown = new Set();
    this.eye = new IntersectionObserver((changes) => changes.forEach((change) => this.look(change)), {
      rootMargin: '400px',
    });
    let waiting = 0;
    new ResizeObserver(() => {
      cancelAnimationFrame(waiting);
      waiting = requestAnimationFrame(() => this.again());
    }).observe(document.body);
  }

  add(canvas, draw) {
    this.draw.set(canvas, draw);
    this.eye.observe(canvas);
  }

  remove(canvas) {
    this.eye.unobserve(canvas);
    this.draw.delete(canvas);
    this.shown.delete(canvas);
  }

  look({ target, isIntersecting }) {
    if (isIntersecting) {
      this.shown.add(target);
      this.draw.get(target)?.(target);
    } else {
      this.shown.delete(target);
      target.width = 0;
    }
  }

  again() {
    for (const canvas of this.shown) this.draw.get(canvas)?.(canvas);
  }
}
