// The view that is shown is part of the address, so that links, Back and bookmarks work.

const feed = new Feed();
const queueView = new QueueView(feed);
const songView = new SongView();
new DropZone();

const VIEWS = { queue: null, song: null, folders: showFolders, batches: showBatches, models: showModels };

function showView() {
  const [asked, id] = location.hash.slice(1).split('/');
  const view = asked in VIEWS ? asked : 'queue';
  for (const section of document.querySelectorAll('main > section')) section.hidden = section.dataset.view !== view;
  for (const link of document.querySelectorAll('nav a')) {
    if (link.dataset.view === view) link.setAttribute('aria-current', 'page');
    else link.removeAttribute('aria-current');
  }
  notice('');
  document.title = view === 'queue' ? 'tsbs-daw' : `${view[0].toUpperCase()}${view.slice(1)} – tsbs-daw`;
  if (view === 'song' && /^[A-Za-z0-9_-]+$/.test(id ?? '')) songView.open(id);
  else songView.close();
  VIEWS[view]?.();
}

window.addEventListener('hashchange', () => {
  // A link within the page, such as "Skip to the content", does not change the view.
  if (location.hash === '#content') return;
  showView();
  if (!location.hash.startsWith('#song')) find('content').focus({ preventScroll: true });
});
find('doctor-run').addEventListener('click', runDoctor);
document.addEventListener('keydown', (event) => songKey(event));
showView();

/** The catalogue's keyboard shortcuts, for the song that is open or playing. */
function songKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target.closest('input, select, textarea')) return;
  const { player, chosen } = songView;
  const song = chosen ?? player.song;
  if (!song) return;
  const act = event.key.toLowerCase() === 'p' ? () => player.toggle(song) : deckKey(songView, song, event.key);
  if (!act) return;
  event.preventDefault();
  act();
}
