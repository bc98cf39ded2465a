// The page itself: which songs are shown, chosen and played.

class Page extends Deck {
  constructor(data) {
    super();
    this.songs = data.songs;
    this.current = null;
    this.fits = [];
    this.filter = {
      state: '',
      words: [],
      slowest: null,
      fastest: null,
      key: '',
      neighbours: false,
      vocals: '',
      fitting: false,
    };
    this.sort = { column: '', down: false };
    this.percent = data.tempoPercent;
    this.songs.forEach((song, place) => this.prepare(song, place));
    introduce(this, data);
    heads(this);
    this.form();
    find('songs').append(...this.songs.map((song) => row(song, this)));
    this.arrange();
    document.addEventListener('keydown', (event) => pressed(this, event));
  }

  prepare(song, place) {
    song.place = place;
    song.searched = plain(
      [song.title, song.artist, song.source, song.key?.name, song.key?.camelot, song.reason].join(' '),
    );
    resetMix(song);
  }

  form() {
    const used = new Map(this.songs.filter((song) => song.key).map((song) => [song.key.camelot, song.key.name]));
    for (const [code, words] of [...used].sort(([a], [b]) => wheelPlace(a) - wheelPlace(b))) {
      find('key').append(el('option', { value: code, text: `${shown(code)} · ${shown(words)}` }));
    }
    const states = ['', ...Object.keys(STATES).filter((state) => this.songs.some((song) => song.state === state))];
    for (const state of states) {
      const count = this.songs.filter((song) => !state || song.state === state).length;
      find('states').append(
        el(
          'label',
          {},
          el('input', { type: 'radio', name: 'state', value: state, checked: !state }),
          el('span', { text: `${STATES[state] ?? 'All'} ${count}` }),
        ),
      );
    }
    find('states').hidden = states.length < 3;
    find('percent').value = this.percent;
    find('filters').addEventListener('submit', (event) => event.preventDefault());
    find('filters').addEventListener('input', () => this.read());
    for (const id of ['clear', 'clear-too']) find(id).addEventListener('click', () => this.clear());
  }

  read() {
    const number = (id) => (find(id).value === '' ? null : Number(find(id).value));
    Object.assign(this.filter, {
      words: plain(find('text').value).split(/\s+/).filter(Boolean),
      slowest: number('slowest'),
      fastest: number('fastest'),
      key: find('key').value,
      neighbours: find('neighbours').checked,
      vocals: find('vocals').value,
      state: find('filters').elements.state?.value ?? '',
    });
    this.percent = Math.max(0, number('percent') ?? 0);
    this.fit();
    this.arrange();
  }

  clear() {
    const percent = find('percent').value;
    find('filters').reset();
    find('percent').value = percent;
    this.filter.fitting = false;
    this.read();
    find('text').focus();
  }

  sortBy(column) {
    // Ascending, descending, then the original order again.
    if (this.sort.column !== column) this.sort = { column, down: false };
    else this.sort = this.sort.down ? { column: '', down: false } : { column, down: true };
    for (const head of document.querySelectorAll('[data-column]')) {
      const on = head.dataset.column === this.sort.column;
      head.setAttribute('aria-sort', on ? (this.sort.down ? 'descending' : 'ascending') : 'none');
    }
    this.arrange();
  }

  /** Sort the songs, and hide those that do not match the filters. */
  arrange() {
    const fitting = new Set(this.fits.map((one) => one.song));
    this.listed = sorted(this.songs, this.sort);
    this.visible = this.listed.filter(
      (song) => wanted(song, this.filter) && (!this.filter.fitting || song === this.chosen || fitting.has(song)),
    );
    const visible = new Set(this.visible);
    this.songs.forEach((song) => (song.element.hidden = !visible.has(song)));
    if (this.ordered !== `${this.sort.column} ${this.sort.down}`) {
      const focused = document.activeElement;
      find('songs').append(...this.listed.map((song) => song.element));
      this.ordered = `${this.sort.column} ${this.sort.down}`;
      if (focused !== document.activeElement) focused?.focus();
    }
    const all = this.visible.length === this.songs.length;
    find('count').textContent = all
      ? ''
      : `${this.visible.length.toLocaleString('en')} of ${many(this.songs.length, 'song')}`;
    find('clear').hidden = all;
    find('nothing').hidden = this.visible.length > 0;
    if (!visible.has(this.current)) this.setCurrent(this.visible[0] ?? null);
  }

  /** Set the one song that the Tab key reaches. */
  setCurrent(song) {
    for (const [one, index] of [
      [this.current, -1],
      [song, 0],
    ]) {
      one?.nameButton.setAttribute('tabindex', index);
      one?.playButton.setAttribute('tabindex', index);
    }
    this.current = song;
  }

  /** Open a song, or close it if it is open. */
  choose(song, jump = false) {
    const closing = song === this.chosen && !jump;
    this.close();
    if (closing) return;
    if (!this.visible.includes(song)) this.clear();
    this.chosen = song;
    this.setCurrent(song);
    this.fit();
    this.open();
    song.nameButton.focus({ preventScroll: !jump });
    if (jump) song.element.scrollIntoView({ block: 'center' });
  }

  close() {
    const song = this.chosen;
    if (!song) return;
    this.chosen = null;
    (song.laneElements ?? []).forEach(({ canvas }) => this.gallery.remove(canvas));
    song.panel?.remove();
    song.panel = song.laneElements = song.slider = song.playhead = null;
    song.nameButton.setAttribute('aria-expanded', 'false');
    song.element.classList.remove('chosen');
    const narrowed = this.filter.fitting;
    this.filter.fitting = false;
    this.fit();
    if (narrowed) this.arrange();
  }

  open() {
    const song = this.chosen;
    song.panel = el('div', { role: 'row' }, details(song, this));
    song.element.append(song.panel);
    song.element.classList.add('chosen');
    song.nameButton.setAttribute('aria-expanded', 'true');
    this.playerChanged();
  }

  /** Find and mark the songs that match the chosen one. */
  fit() {
    this.fits = this.chosen ? matches(this.chosen, this.songs, this.percent) : [];
    const found = new Map(this.fits.map((one) => [one.song, one]));
    find('songs').classList.toggle('choosing', this.fits.length > 0);
    for (const song of this.songs) {
      song.element.classList.toggle('fits', found.has(song));
      song.badge.hidden = !found.has(song);
      song.badge.textContent = found.has(song) ? matchWords(found.get(song)) : '';
    }
    const old = this.chosen?.panel?.querySelector('.fitting');
    if (old) old.replaceWith(fitting(this.chosen, this) ?? '');
  }

  showFitting(on) {
    this.filter.fitting = on;
    this.arrange();
    this.fit();
    this.chosen?.panel.querySelector('.only')?.focus();
  }
}

new Page(JSON.parse(find('data').textContent));
