// A song's row in the table.

const STATES = { done: 'Ready', failed: 'Failed', duplicate: 'Duplicate', waiting: 'Waiting' };

function row(song, app) {
  const able = song.files.some((file) => !file.problem);
  song.playButton = el('button', {
    type: 'button',
    class: 'play',
    tabindex: -1,
    disabled: !able,
    'aria-label': `Play ${shown(song.title)}`,
    onclick: () => app.play(song),
  });
  song.nameButton = el(
    'button',
    {
      type: 'button',
      class: 'name',
      tabindex: -1,
      'aria-expanded': 'false',
      onclick: () => app.choose(song),
    },
    name(song.title, { class: 'title' }),
  );
  song.badge = el('span', { class: 'fit', hidden: true });
  const marks = [];
  if (song.state !== 'done') marks.push(el('span', { class: `state ${song.state}`, text: STATES[song.state] }));
  const count = song.warnings.length + song.files.filter((file) => file.problem).length;
  if (count) {
    marks.push(
      el('span', { class: 'warnings', title: song.warnings.map(shown).join('\n'), text: `${many(count, 'warning')}` }),
    );
  }
  // Songs without tags may have the same title, but their paths differ.
  const whose = name(song.artist || song.source);
  const under = el('span', { class: 'under' }, whose, ...marks, song.badge);
  song.line = el(
    'div',
    { class: 'row', role: 'row', onclick: (event) => event.target.closest('button, a, .picture') || app.choose(song) },
    cell('start', song.playButton),
    cell('song', song.nameButton, under),
    picture(song, app),
    ...values(song),
  );
  song.element = el('div', { class: `entry ${song.state}`, role: 'rowgroup' }, song.line);
  return song.element;
}

const cell = (kind, ...content) => el('div', { class: `cell ${kind}`, role: 'cell' }, ...content);

function picture(song, app) {
  if (song.state !== 'done') {
    const twin = song.duplicateOf && app.songs.find((one) => one.source === song.duplicateOf);
    const jump =
      twin &&
      el('button', { type: 'button', class: 'name', tabindex: -1, onclick: () => app.choose(twin, true) }, 'Go to it');
    return cell(
      'why',
      el('span', {}, name(song.reason ?? (song.state === 'waiting' ? 'It is waiting to be separated.' : ''))),
      jump,
    );
  }
  const files = pictured(song);
  const lanes = files.length || 1;
  const canvas = el('canvas', { 'aria-hidden': 'true' });
  song.smallPlayhead = el('div', { class: 'playhead', hidden: true });
  const edges = song.sections.slice(1).map(([from]) => span('edge', song, from, from));
  const box = el('div', { class: 'picture' }, canvas, ...edges, song.smallPlayhead);
  box.style.setProperty('--lanes', Math.min(lanes, 8));
  if (files.length) {
    const draw = () => drawWaveforms(canvas, files, (song.scale ??= loudest(files)), 0.6);
    app.gallery.add(canvas, draw);
    box.title = `${files.map((file) => shown(file.name)).join(', ')}: click to play from there`;
    box.addEventListener('click', (event) => {
      const area = box.getBoundingClientRect();
      app.goTo(song, ((event.clientX - area.left) / area.width) * (song.durationS ?? 0), true);
    });
  } else
    box.append(
      el('span', { class: 'lane-note', text: song.files.length ? 'Its files are missing.' : 'It has no files.' }),
    );
  return cell('wave', box);
}

function values(song) {
  const { tempo, key, loudness, doubts } = song;
  const chip =
    key && el('span', { class: 'chip' }, marked(key.camelot, doubts.key), el('small', { text: shown(key.name) }));
  const place = camelot(key?.camelot);
  if (chip && place) {
    chip.style.setProperty('--hue', String((place[0] * 30 + 330) % 360));
    chip.classList.add(place[1] === 'A' ? 'minor' : 'major');
  }
  return [
    cell(
      'tempo figure',
      tempo ? marked(decimal(tempo.bpm), doubts.tempo) : NOTHING,
      tempo && !tempo.steady ? el('small', { text: 'changes' }) : null,
    ),
    cell('key', chip || NOTHING),
    cell('loudness figure', loudness && loudness.lufs !== null ? decimal(loudness.lufs) : NOTHING),
    cell('residual figure', song.residualDb !== null ? decimal(song.residualDb, 0) : NOTHING),
    cell('length figure', song.durationS !== null ? clock(song.durationS) : NOTHING),
  ];
}

/** A figure. A doubtful one is marked visibly, with the reason as a tooltip and for screen readers. */
function marked(text, doubt) {
  if (!doubt) return el('span', { text: shown(text) });
  return el(
    'span',
    { class: 'doubtful', title: doubt },
    shown(text),
    el('span', { class: 'unseen', text: ' (doubtful)' }),
  );
}
