// Watch folders and their files, batches, models, and the checks of this machine.

const DOCTOR_MARKS = { ok: 'ok', note: 'note', problem: 'problem' };

async function showFolders() {
  await attempt(null, async () => {
    const found = await ask('/api/folders');
    const none = el('p', { class: 'none' }, 'No folder has been watched yet. Start with ', el('code', { text: 'tsbs-daw watch FOLDER --out FOLDER' }), '.');
    find('folders').replaceChildren(...(found.length ? found.map(folderPlace) : [none]));
  });
}

function folderPlace(folder) {
  const state = folder.watched ? 'watched now' : folder.there ? 'not watched now' : 'missing';
  const counts = Object.entries(folder.counts).map(([kind, count]) => `${count} ${kind}`);
  const items = folder.files.map((file) =>
    el(
      'li',
      {},
      file.state === 'done' && file.job ? el('a', { href: `#song/${file.job}` }, name(file.file)) : name(file.file),
      el('span', { class: file.state === 'failed' || file.state === 'dead' ? 'bad' : '', text: file.state }),
      file.why ? el('small', { text: shown(file.why) }) : null,
    ),
  );
  if (folder.more) items.push(el('li', { text: `and ${many(folder.more, 'older file')}` }));
  return el(
    'section',
    { class: 'place', 'aria-label': `Folder ${shown(folder.folder)}` },
    el('h3', {}, name(folder.folder)),
    el('p', { class: folder.watched ? 'good' : 'none', text: [state, ...counts].join(' · ') }),
    folder.out ? el('small', { text: `Stems go to ${shown(folder.out)}` }) : null,
    el('ul', {}, ...items),
  );
}

async function showBatches() {
  await attempt(null, async () => {
    const found = await ask('/api/catalogues');
    const none = el('p', { class: 'none' }, 'There are no batches yet. Start with ', el('code', { text: 'tsbs-daw batch FOLDER --out FOLDER' }), '.');
    const places = found.map((one) =>
      el(
        'section',
        { class: 'place', 'aria-label': `Batch ${shown(one.name)}` },
        el('h3', {}, el('a', { href: `/catalogues/${one.id}` }, name(one.name))),
        el('small', {}, name(one.folder)),
      ),
    );
    find('batches').replaceChildren(...(places.length ? places : [none]));
  });
}

async function showModels() {
  await attempt(null, async () => {
    const found = await ask('/api/models');
    find('models').replaceChildren(
      ...found.map((model) =>
        el(
          'section',
          { class: 'place', 'aria-label': `Model ${shown(model.name)}` },
          el('h3', {}, name(model.name)),
          el('p', { text: shown(model.description) }),
          el('small', { text: [model.state, model.size ? `${decimal(model.size / 1e6)} MB` : ''].filter(Boolean).join(' · ') }),
          model.state === 'not pulled' ? el('p', {}, 'Get it with ', el('code', { text: `tsbs-daw models pull ${model.name}` })) : null,
        ),
      ),
    );
  });
}

async function runDoctor() {
  find('doctor-state').textContent = 'The checks are running. They separate a second of audio, which may take a minute.';
  await attempt(find('doctor-run'), async () => {
    const report = await ask('/api/doctor', { method: 'POST' });
    find('doctor').replaceChildren(
      ...report.findings.map((finding) =>
        el(
          'li',
          {},
          el('span', { class: finding.status === 'problem' ? 'bad' : 'none', text: `${DOCTOR_MARKS[finding.status] ?? ''} ${shown(finding.topic)}` }),
          el('span', {}, shown(finding.what), finding.advice ? el('small', { text: ` ${shown(finding.advice)}` }) : null),
        ),
      ),
    );
    find('doctor-state').textContent = report.ok ? 'Everything that is needed works.' : 'There are problems; see below.';
  });
  if (find('doctor-state').textContent.startsWith('The checks are running.')) find('doctor-state').textContent = '';
}
