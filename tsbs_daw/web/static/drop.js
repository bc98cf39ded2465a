// Files that are dropped onto the page, or chosen: uploaded one after the other, unchanged.

class DropZone {
  constructor() {
    this.waiting = [];
    this.sending = false;
    find('file').addEventListener('change', () => {
      this.add(find('file').files);
      find('file').value = '';
    });
    find('drop').addEventListener('submit', (event) => event.preventDefault());
    // Accept drops anywhere: otherwise, a file that misses the field would replace the page.
    document.addEventListener('dragover', (event) => this.over(event, true));
    document.addEventListener('dragleave', (event) => event.relatedTarget || this.over(event, false));
    document.addEventListener('drop', (event) => {
      this.over(event, false);
      this.add(event.dataTransfer?.files ?? []);
    });
    this.fill();
  }

  async fill() {
    await attempt(null, async () => {
      this.choices = await ask('/api/choices');
      for (const [id, names, usual] of [
        ['preset', this.choices.presets, 'none'],
        ['model', this.choices.models, 'default'],
      ]) {
        find(id).replaceChildren(...names.map((one) => el('option', { value: one, text: shown(one), selected: one === usual })));
      }
      find('drop-out').textContent = `Stems go to ${shown(this.choices.out)}`;
    });
  }

  over(event, on) {
    event.preventDefault();
    find('target').classList.toggle('over', on);
  }

  add(files) {
    for (const file of files) {
      const text = el('span', { text: 'waits' });
      const bar = el('progress', { max: 1, value: 0, 'aria-label': `Sending ${shown(file.name)}` });
      const stop = el('button', { type: 'button', text: 'Stop', 'aria-label': `Stop sending ${shown(file.name)}` });
      const item = { file, text, bar, preset: find('preset').value, model: find('model').value };
      item.element = el('li', { class: 'job' }, el('span', {}, name(file.name), ' · ', text), el('div', { class: 'acts' }, stop), bar);
      stop.addEventListener('click', () => this.stop(item));
      find('uploads').append(item.element);
      this.waiting.push(item);
    }
    this.next();
  }

  stop(item) {
    this.waiting = this.waiting.filter((one) => one !== item);
    item.request?.abort();
    item.element.remove();
  }

  async next() {
    if (this.sending) return;
    this.sending = true;
    for (let item; (item = this.waiting.shift()); ) {
      const problem = await this.send(item);
      if (problem === null) {
        say(`${shown(item.file.name)} has arrived.`);
        item.element.remove();
      } else {
        item.text.textContent = problem;
        item.text.className = 'bad';
        item.bar.hidden = true;
        item.element.querySelector('button').textContent = 'Dismiss';
        notice(`${shown(item.file.name)}: ${problem}`);
      }
    }
    this.sending = false;
  }

  /** Upload a file, and return the problem or null. Uses XMLHttpRequest because fetch reports no upload progress. */
  send(item) {
    if (this.choices && item.file.size > this.choices.mostBytes) {
      return Promise.resolve('This file is too large to upload; use `tsbs-daw submit` for it.');
    }
    return new Promise((resolve) => {
      const request = (item.request = new XMLHttpRequest());
      const query = new URLSearchParams({ name: item.file.name, preset: item.preset, model: item.model });
      request.open('PUT', `/api/songs?${query}`);
      request.setRequestHeader('X-Tsbs-Daw', 'upload');
      request.setRequestHeader('Content-Type', 'application/octet-stream');
      request.upload.addEventListener('progress', (event) => {
        item.bar.value = event.total ? event.loaded / event.total : 0;
        item.text.textContent = `sending, ${percent(item.bar.value)}`;
      });
      request.addEventListener('load', () => {
        if (request.status === 201) return resolve(null);
        let found = {};
        try {
          found = JSON.parse(request.responseText);
        } catch {
          // not a response of tsbs-daw; report its status
        }
        resolve(found.error ?? `tsbs-daw answered with an error (${request.status}).`);
      });
      request.addEventListener('error', () => resolve('The page cannot reach tsbs-daw; drop the file again.'));
      request.addEventListener('abort', () => resolve('Stopped.'));
      request.send(item.file);
    });
  }
}
