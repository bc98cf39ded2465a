// The head of the page, above the songs.

/** Fill in the name and progress of the batch. */
function introduce(page, data) {
  document.title = `${shown(data.crate)} – catalogue`;
  find('crate').firstChild.textContent = shown(data.crate);
  const done = page.songs.filter((song) => song.state === 'done');
  const others = ['waiting', 'failed', 'duplicate'].map((state) => [
    page.songs.filter((song) => song.state === state).length,
    state,
  ]);
  const total = done.reduce((sum, song) => sum + (song.durationS ?? 0), 0);
  const words = [
    `${done.length.toLocaleString('en')} of ${many(page.songs.length, 'song')} ready`,
    total ? clock(total) : '',
    ...others.map(([count, state]) => (count ? `${count} ${state}` : '')),
  ];
  find('summary').textContent = words.filter(Boolean).join(' · ');
  const when = new Date(data.created).toLocaleString('en-GB', { dateStyle: 'medium', timeStyle: 'short' });
  find('made').append('Preset ', name(data.preset), el('br'), when);
  find('whole').append(...data.links.map((one) => link(one.name, one.url)));
  find('whole').hidden = !data.links.length;
  const open = others[0][0] ? ' The batch is not finished: reload this page to see more.' : '';
  find('made').append(open ? el('small', { text: open }) : '');
  warn(page);
}

/** Warn once about formats that this browser does not play well. */
function warn(page) {
  const has = (ending) => page.songs.some((song) => song.files.some((file) => ending.test(file.url)));
  const words = [];
  if (has(/\.aiff?$/i) && !document.createElement('audio').canPlayType('audio/aiff')) {
    words.push(
      'This browser does not play AIFF. The files are fine: open them in your DAW, or deliver WAV or FLAC to listen here.',
    );
  }
  if (has(/\.mp3$/i))
    words.push('Seeking in MP3 is inexact: after a jump, stems may be 25 ms apart here. WAV and FLAC stay in sync.');
  find('notice').textContent = words.join(' ');
  find('notice').hidden = !words.length;
}

/** The table's head. A click on a column sorts by it. */
function heads(page) {
  const cells = COLUMNS.map(({ id, label, unit }) =>
    el(
      'div',
      { class: `cell ${id}`, role: 'columnheader', 'aria-sort': 'none', 'data-column': id },
      el('button', { type: 'button', text: label, title: unit, onclick: () => page.sortBy(id) }),
    ),
  );
  const silent = (kind, label) =>
    el('div', { class: `cell ${kind}`, role: 'columnheader' }, el('span', { class: 'unseen', text: label }));
  find('heads').append(silent('start', 'Play'), cells[0], silent('wave', 'Waveforms'), ...cells.slice(1));
}
