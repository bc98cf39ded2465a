// Helpers for elements and text. All text from the catalogue is inserted here, never as markup.

const NOTHING = '–';

const find = (id) => document.getElementById(id);

/** Create an element: attributes by name; `text` sets the text, `on…` adds a handler, false omits an attribute. */
function el(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === 'text') element.textContent = value;
    else if (name.startsWith('on')) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, '');
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

/** An external name, isolated so that right-to-left text does not affect its surroundings. */
const name = (text, attributes = {}) => el('bdi', { ...attributes, text: shown(text) });

/** Make line ends and control characters in a text visible as symbols. */
function shown(text) {
  return String(text)
    .replace(/[\u0000-\u001f]/g, (c) => String.fromCharCode(0x2400 + c.charCodeAt(0)))
    .replace(/[\u007f-\u009f\u200e\u200f\u2028-\u202e\u2066-\u2069]/g, '\u2423')
    .replace(/[\ud800-\udfff]/gu, '\ufffd');
}

const decimal = (value, digits = 1) =>
  value
    .toFixed(digits)
    .replace(/^-(0(\.0*)?)$/, '$1')
    .replace('-', '−');

const signed = (value, digits = 1) => (value > 0 ? '+' : '') + decimal(value, digits);

function clock(seconds) {
  const whole = Math.max(0, Math.round(seconds));
  const [h, m, s] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  const two = (n) => String(n).padStart(2, '0');
  return h ? `${h}:${two(m)}:${two(s)}` : `${m}:${two(s)}`;
}

const many = (count, one, more = `${one}s`) => `${count.toLocaleString('en')} ${count === 1 ? one : more}`;

const percent = (share) => `${Math.round(share * 100)} %`;

/** Format a confidence: 0.31 is "31 % sure". */
const sure = (confidence) => `${percent(confidence)} sure`;

/** Normalise text for searching: no case, no accents. */
const plain = (text) =>
  String(text)
    .normalize('NFKD')
    .replace(/[\u0300-\u036f]/g, '')
    .toLowerCase();
