// The panel below a chosen song: its files as lanes with solo and mute, its figures, and matching songs.

/** The panel of a song. `app` is the page: player, gallery and actions. */
function details(song, app) {
  const panel = el('div', { class: 'panel', role: 'cell', 'aria-colspan': 8 });
  if (song.files.length) panel.append(el('div', { class: 'transport' }, ...transport(song, app)), lanes(song, app));
  panel.append(el('div', { class: 'facts' }, figures(song), remarks(song), fitting(song, app)));
  return panel;
}

function lanes(song, app) {
  const scale = loudest(song.files);
  const box = el('div', { class: 'lanes' });
  const field = el('div', { class: 'field-of-lanes' });
  song.laneElements = song.files.map((file, number) => {
    const lane = laneHead(song, file, number, app);
    const canvas = el('canvas', { class: 'lane-picture', 'aria-hidden': 'true' });
    const silences = (file.silences ?? []).map(([from, to]) => span('silence', song, from, to, 'silent'));
    const note = file.problem
      ? el('p', { class: 'lane-note' }, el('span', {}, 'Not available: ', name(file.problem)))
      : null;
    const body = el(
      'div',
      { class: 'lane-body' },
      ...silences,
      canvas,
      note,
      el('p', { class: 'lane-note trouble', hidden: true }),
    );
    if (file.levels) app.gallery.add(canvas, () => drawWaveforms(canvas, [file], scale, 0.8));
    box.append(lane);
    field.append(body);
    return { file, lane, body, canvas };
  });
  const marks = song.sections.map(([from, to, label]) => {
    const mark = span('section', song, from, to, `Section ${shown(label)}: ${clock(from)} to ${clock(to)}`);
    mark.append(name(label));
    return mark;
  });
  const ruler = el('div', { class: 'ruler' }, ...marks);
  const lines = song.sections.slice(1).map(([from]) => span('edge', song, from, from));
  song.playhead = el('div', { class: 'playhead', hidden: true });
  const hover = el('div', { class: 'hover', hidden: true }, el('span'));
  song.loopMark = el('div', { class: 'loop', hidden: true });
  field.append(song.loopMark, ...lines, hover, song.playhead);
  const slider = el(
    'div',
    {
      class: 'seek',
      role: 'slider',
      tabindex: 0,
      'aria-label': `Position in ${shown(song.title)}`,
      'aria-valuemin': 0,
      'aria-valuemax': Math.round(song.durationS ?? 0),
      'aria-valuenow': 0,
    },
    ruler,
    field,
  );
  song.slider = slider;
  seekable(slider, song, app, hover);
  return el(
    'div',
    { class: 'mixer' },
    el(
      'div',
      { class: 'lane-heads' },
      el('div', { class: 'ruler-head', text: song.sections.length ? 'Sections' : '' }),
      box,
    ),
    slider,
  );
}

function laneHead(song, file, number, app) {
  const kind = { stem: '', output: 'processed', source: 'the song' }[file.kind];
  const button = (what, letter, words) =>
    el('button', {
      type: 'button',
      class: what,
      'aria-pressed': String(Boolean(file[what])),
      title: `${words} ${shown(file.name)}`,
      'aria-label': `${words} ${shown(file.name)}`,
      text: letter,
      disabled: Boolean(file.problem),
      onclick: () => app.mix(song, file, what),
    });
  const dot = el('span', { class: 'dot', 'aria-hidden': 'true' });
  dot.style.setProperty('--color', file.color);
  const quiet = [kind, silenceWords(file), file.lufs === null ? '' : `${decimal(file.lufs)} LUFS`].filter(Boolean);
  return el(
    'div',
    { class: 'lane-head', role: 'group', 'aria-label': `File ${number + 1}, ${shown(file.name)}` },
    dot,
    el('span', { class: 'lane-name' }, name(file.name), el('small', { text: quiet.join(' · ') })),
    button('mute', 'M', 'Mute'),
    button('solo', 'S', 'Solo'),
  );
}

/** "from 0:31" for a stem that starts late; "silent" for one without any sound. */
function silenceWords(file) {
  if (file.share === undefined) return '';
  if (file.firstSoundS === null) return 'silent';
  return file.firstSoundS >= 1 ? `from ${clock(file.firstSoundS)}` : '';
}

/** An element for a part of the song, positioned on its time axis. */
function span(kind, song, from, to, title = null) {
  const part = el('div', { class: kind, title });
  const length = song.durationS || 1;
  part.style.setProperty('left', `${(100 * from) / length}%`);
  part.style.setProperty('width', `${(100 * (Math.min(to, length) - from)) / length}%`);
  return part;
}

function seekable(slider, song, app, hover) {
  const at = (event) => {
    const box = slider.getBoundingClientRect();
    return Math.min(1, Math.max(0, (event.clientX - box.left) / box.width)) * (song.durationS ?? 0);
  };
  slider.addEventListener('pointerdown', (event) => event.button === 0 && app.goTo(song, at(event)));
  slider.addEventListener('pointermove', (event) => {
    hover.hidden = false;
    hover.style.setProperty('left', `${(100 * at(event)) / (song.durationS || 1)}%`);
    hover.firstChild.textContent = clock(at(event));
  });
  slider.addEventListener('pointerleave', () => (hover.hidden = true));
  slider.addEventListener('keydown', (event) => {
    const here = app.player.song === song ? app.player.position : 0;
    const to = {
      ArrowLeft: here - 5,
      ArrowDown: here - 5,
      ArrowRight: here + 5,
      ArrowUp: here + 5,
      PageDown: here - 30,
      PageUp: here + 30,
      Home: 0,
      End: song.durationS ?? 0,
    }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    event.stopPropagation();
    app.goTo(song, to, app.player.playing && app.player.song === song);
  });
}

function figures(song) {
  const list = el('dl', { class: 'figures' });
  const add = (label, value, why = '', kind = null) => {
    if (value)
      list.append(
        el(
          'div',
          { class: kind },
          el('dt', { text: label }),
          el('dd', {}, value, why ? el('small', { text: why }) : null),
        ),
      );
  };
  const { tempo, key, loudness, meter } = song;
  if (tempo) {
    const way = tempo.steady ? 'steady' : `changes, ${decimal(tempo.slowest)} to ${decimal(tempo.fastest)}`;
    add('Tempo', `${decimal(tempo.bpm)} BPM`, `${sure(tempo.confidence)}, ${way}, heard in the ${shown(tempo.source)}`);
  }
  if (meter) add('Bars', `${meter.beats} beats`, meter.doubtful ? 'doubtful' : '');
  if (key) add('Key', `${shown(key.name)} · ${shown(key.camelot)}`, sure(key.confidence));
  if (loudness && loudness.lufs !== null) {
    const range = loudness.rangeLu === null ? '' : `range ${decimal(loudness.rangeLu)} LU`;
    const peak = loudness.peakDb === null ? '' : `true peak ${decimal(loudness.peakDb)} dB`;
    const when = song.gainDb ? 'before the gain' : '';
    add('Loudness', `${decimal(loudness.lufs)} LUFS`, [range, peak, when].filter(Boolean).join(', '));
  }
  if (song.residualDb !== null) add('Null residual', `${decimal(song.residualDb)} dB`, 'song minus its stems');
  if (song.introS) add('First sound', clock(song.introS));
  if (song.gainDb) add('Gain', `${signed(song.gainDb)} dB`, 'the same for all files');
  if (song.sampleRate)
    add(
      'Audio',
      `${(song.sampleRate / 1000).toLocaleString('en')} kHz`,
      song.channels === 1 ? 'mono' : song.channels === 2 ? 'stereo' : many(song.channels ?? 0, 'channel'),
    );
  const links = song.links.map((one) => link(one.name, one.url));
  if (links.length) add('Open', el('span', { class: 'links' }, ...links), '', 'wide');
  add('Source', name(song.source, { class: 'path' }), '', 'wide');
  return list;
}

const link = (text, url) => el('a', { href: url }, name(text));

function remarks(song) {
  const doubts = Object.values(song.doubts).map((why) => el('li', { class: 'doubt' }, name(why)));
  const warnings = [...song.warnings, ...song.notes].map((warning) => el('li', {}, name(warning)));
  if (song.reason) warnings.unshift(el('li', {}, name(song.reason)));
  if (!doubts.length && !warnings.length) return null;
  return el('div', { class: 'remarks' }, el('h2', { text: 'Notes' }), el('ul', {}, ...doubts, ...warnings));
}

function fitting(song, app) {
  if (song.state !== 'done') return null;
  const found = app.fits;
  const head = el('h2', {
    text: found.length ? `${many(found.length, 'song')} ${found.length === 1 ? 'fits' : 'fit'}` : 'No song fits',
  });
  const box = el('div', { class: 'fitting' }, head);
  if (!song.tempo) box.append(el('p', { text: 'The tempo is unknown, so songs cannot be compared.' }));
  const items = found
    .slice(0, 6)
    .map((one) =>
      el(
        'li',
        {},
        el(
          'button',
          { type: 'button', class: 'name', onclick: () => app.choose(one.song, true) },
          name(one.song.title),
        ),
        el('small', { text: matchWords(one) }),
      ),
    );
  if (items.length) box.append(el('ul', {}, ...items));
  if (found.length) {
    box.append(
      el('button', {
        type: 'button',
        class: 'only',
        'aria-pressed': String(app.filter.fitting),
        text: 'Show only these',
        onclick: () => app.showFitting(!app.filter.fitting),
      }),
    );
  }
  return box;
}
