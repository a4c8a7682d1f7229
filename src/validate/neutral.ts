/**
 * Makes an output harmless for whoever shows it: a page, a terminal or a spreadsheet. Only texts are changed; in JSON
 * numbers, structure and spacing stay as they were written.
 */
import type { Audience } from './contract.ts';

/** Escape sequences of terminals: CSI, OSC and the like, single controls, and marks that turn the direction of text. */
const ESCAPES = new RegExp(
  [
    '\\u001b\\[[0-?]{0,64}[ -/]{0,16}[@-~]',
    '\\u001b[\\]PX^_][^\\u0007\\u001b]{0,4096}(?:\\u0007|\\u001b\\\\)',
    '[\\u0000-\\u0008\\u000b\\u000c\\u000e-\\u001f\\u007f-\\u009f]',
    '[\\u200e\\u200f\\u202a-\\u202e\\u2066-\\u2069]',
  ].join('|'),
  'g',
);
const HTML: Readonly<Record<string, string>> = { '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;', "'": '&#39;' };
/** What a spreadsheet takes for the beginning of a formula. */
const FORMULA = /^[\t\r\n ]*[=+\-@|%]/;
const PLAIN_NUMBER = /^[+-]?\d[\d.,]*(?:e[+-]?\d+)?$/i;

function neutraliseText(text: string, audiences: ReadonlySet<Audience>): string {
  let safe = text;
  if (audiences.has('ansi')) safe = safe.replace(ESCAPES, '');
  if (audiences.has('html')) safe = safe.replace(/[&<>"']/g, (char) => HTML[char] ?? char);
  if (audiences.has('csv') && FORMULA.test(safe) && !PLAIN_NUMBER.test(safe)) safe = `'${safe}`;
  return safe;
}

/** `json`: one JSON text. Otherwise any UTF-8 text, whose cells are those of CSV. */
export function neutralise(text: string, form: 'json' | 'text', audiences: readonly Audience[]): string {
  const wanted = new Set(audiences);
  if (form === 'text') return wanted.has('csv') ? cells(text, wanted) : neutraliseText(text, wanted);
  return text.replace(/"(?:[^"\\]|\\.)*"/gs, (literal) => {
    const before = JSON.parse(literal) as string;
    const after = neutraliseText(before, wanted);
    return after === before ? literal : JSON.stringify(after);
  });
}

/** A cell begins after a separator or a line break, perhaps with a quotation mark. */
function cells(text: string, audiences: ReadonlySet<Audience>): string {
  const others = new Set([...audiences].filter((audience) => audience !== 'csv'));
  const csv = new Set<Audience>(['csv']);
  const cell = /(^|[,;\t\n])("?)([^,;\t\n"]*)/g;
  const safe = text.replace(cell, (_all, separator: string, quote: string, content: string) => {
    return `${separator}${quote}${neutraliseText(content, csv)}`;
  });
  return neutraliseText(safe, others);
}
