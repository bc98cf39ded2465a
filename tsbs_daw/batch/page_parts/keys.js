// Keyboard shortcuts.

/** Handle a key, wherever the focus is. */
function pressed(page, event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const typing = event.target.closest('input:not([type=radio]):not([type=checkbox]), select');
  if (event.key === 'Escape') {
    if (typing) typing.blur();
    else if (page.chosen) {
      const { nameButton } = page.chosen;
      page.close();
      nameButton.focus();
    }
    return;
  }
  if (typing || event.target.type === 'radio') return;
  const act = action(page, event.key, event.target);
  if (!act) return;
  event.preventDefault();
  act();
}

/** The action of a key, as a function; nothing if it has none here. */
function action(page, key, target) {
  const step = { ArrowDown: 1, ArrowUp: -1, PageDown: 10, PageUp: -10, Home: -1e9, End: 1e9 }[key];
  if (step && (target === document.body || target.closest('.row'))) {
    return () => {
      const here = page.visible.indexOf(page.current);
      const next =
        page.visible[Math.min(page.visible.length - 1, Math.max(0, here + (target.closest('.row') ? step : 0)))];
      if (!next) return;
      page.setCurrent(next);
      next.nameButton.focus();
    };
  }
  const { player, chosen } = page;
  const song = player.song ?? chosen ?? page.current;
  if (key === 'p' || key === 'P') return song && (() => playKey(page));
  if (key === '/') return () => find('text').focus();
  const mixed = chosen ?? player.song;
  return mixed ? deckKey(page, mixed, key) : null;
}

/** Play the song that has the focus or is chosen; pause if one is playing. */
function playKey(page) {
  if (page.player.playing) return page.player.pause();
  const near = document.activeElement?.closest('.entry');
  const song = page.songs.find((one) => one.element === near) ?? page.chosen ?? page.player.song ?? page.current;
  if (!song.playButton.disabled) page.play(song);
}
