// The view of a song: its stems in the catalogue's player, and its files for download.

class SongView extends Deck {
  constructor() {
    super();
    this.songs = new Map(); // by job: a song keeps playing while another view is shown
  }

  /** Show a job's song. The parameter `jump` is set by the player's dock. */
  async choose(song, jump = false) {
    if (jump) location.hash = `#song/${song.id}`;
  }

  async open(jobId) {
    this.close();
    const wanted = (this.wanted = jobId);
    find('song-title').replaceChildren('Loading');
    find('song').replaceChildren(el('p', { class: 'none', text: 'Measuring the waveforms; a long song takes a moment.' }));
    await attempt(null, async () => {
      const job = await ask(`/api/jobs/${jobId}`);
      if (this.wanted !== wanted) return;
      find('song-title').replaceChildren(name(job.song));
      find('song-title').focus({ preventScroll: true });
      document.title = `${shown(job.song)} – tsbs-daw`;
      const song = this.songs.get(jobId) ?? (await ask(`/api/jobs/${jobId}/song`));
      if (this.wanted !== wanted) return;
      this.songs.set(jobId, song);
      this.show(song, job);
    });
    if (!this.chosen && this.wanted === wanted) find('song').replaceChildren();
  }

  close() {
    for (const { canvas } of this.chosen?.laneElements ?? []) this.gallery.remove(canvas);
    if (this.chosen) this.chosen.panel = this.chosen.slider = this.chosen.playhead = this.chosen.laneElements = null;
    this.chosen = this.wanted = null;
  }

  show(song, job) {
    if (song !== this.player.song) resetMix(song);
    song.playButton = el('button', {
      type: 'button',
      class: 'play',
      'aria-label': `Play ${shown(song.title)}`,
      onclick: () => this.player.toggle(song),
    });
    song.element = el('div', { class: 'song-page' });
    const panel = el('div', { class: 'panel' }, lanes(song, this));
    song.element.append(el('div', { class: 'transport' }, song.playButton, ...transport(song, this)), panel);
    song.element.append(el('div', { class: 'facts' }, figures(song), remarks(song)));
    find('song').replaceChildren(song.element, ...saved(job));
    this.chosen = song;
    this.playerChanged();
  }
}

/** Download links for the files of a job, and for all of them in one archive. */
function saved(job) {
  const label = { stem: 'stem', output: 'processed', source: 'the song', session: 'session', loop: 'loop', other: '' };
  const items = job.files.map((file) =>
    el(
      'li',
      {},
      el('a', { href: `/api/jobs/${job.id}/files/${file.id}/save`, download: '' }, name(file.name)),
      label[file.kind] ? el('small', { text: ` ${label[file.kind]}` }) : null,
    ),
  );
  return [
    el('h2', { text: 'Files' }),
    el('p', {}, el('a', { class: 'plain', href: `/api/jobs/${job.id}/archive`, download: '', text: 'Save all as .zip' })),
    el('p', { class: 'none' }, 'On this machine: ', el('code', { text: shown(job.folder) })),
    el('ul', { class: 'saved' }, ...items),
  ];
}
