/**
 * A Mayflyfile as text: the part of a Dockerfile that says what is in an image and how it is started, line by line.
 * Pure and bounded. What would change the meaning when it is left out is refused with its line.
 */
import { MayflyError } from '../../core/errors.ts';
import { printableLine } from '../../core/json.ts';
import { limits } from '../../core/limits.ts';

export interface Instruction {
  /** Upper case. */
  readonly name: string;
  /** Where it begins, from 1. */
  readonly line: number;
  /** `--chmod=755` and the like, by name. */
  readonly flags: ReadonlyMap<string, string>;
  /** Words of the JSON form; undefined when it is not in that form. */
  readonly list: readonly string[] | undefined;
  /** What follows name and flags, continued lines joined. */
  readonly text: string;
}

/** An error about one line of a file. */
export type Refuse = (line: number, why: string, code?: 'E_BUILD_FILE' | 'E_IMAGE_UNSUPPORTED') => MayflyError;

export function refuserOf(file: string): Refuse {
  return (line, why, code = 'E_BUILD_FILE') => {
    return new MayflyError(code, `${printableLine(file, 200)}:${line}: ${printableLine(why, 400)}.`);
  };
}

/** Throws E_BUILD_FILE, naming the line. */
export function parseInstructions(text: string, refuse: Refuse): Instruction[] {
  if (Buffer.byteLength(text) > limits.buildFileBytesMax) {
    throw refuse(1, `the file has more than ${limits.buildFileBytesMax} bytes`);
  }
  if (text.includes('\0') || text.includes('\ufffd')) throw refuse(1, 'it is not text in UTF-8');
  const found: Instruction[] = [];
  const lines = text.split(/\r?\n/);
  for (let at = 0; at < lines.length; at += 1) {
    const line = at + 1;
    if (isIgnored(lines[at])) continue;
    let whole = lines[at] ?? '';
    while (/\\\s*$/.test(whole)) {
      whole = whole.replace(/\\\s*$/, ' ');
      at += 1;
      // Comments and empty lines between continued lines are dropped, as docker does.
      while (at < lines.length && isIgnored(lines[at])) at += 1;
      if (at >= lines.length) throw refuse(line, 'it goes on in a line that is not there');
      whole += lines[at] ?? '';
    }
    if (found.length >= limits.buildInstructionsMax) {
      throw refuse(line, `there are more than ${limits.buildInstructionsMax} instructions`);
    }
    found.push(parseOne(whole.trim(), line, refuse));
  }
  return found;
}

function isIgnored(line: string | undefined): boolean {
  return line === undefined || /^\s*(?:#|$)/.test(line);
}

function parseOne(text: string, line: number, refuse: Refuse): Instruction {
  const [, name = '', after = ''] = /^([A-Za-z]+)(?:\s+|$)(.*)$/s.exec(text) ?? [];
  if (name === '') throw refuse(line, `"${text.slice(0, 40)}" does not begin with an instruction`);
  const flags = new Map<string, string>();
  let rest = after;
  for (;;) {
    const [flag, key = '', value = ''] = /^--([a-z-]+)(?:=(\S*))?(?:\s+|$)/.exec(rest) ?? [];
    if (flag === undefined) break;
    flags.set(key, value);
    rest = rest.slice(flag.length);
  }
  return { name: name.toUpperCase(), line, flags, list: listOf(rest, line, refuse), text: rest.trim() };
}

function listOf(text: string, line: number, refuse: Refuse): string[] | undefined {
  if (!text.startsWith('[')) return undefined;
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    throw refuse(line, 'what begins with [ is not a list in JSON');
  }
  const words = (item: unknown): item is string[] => Array.isArray(item) && item.every((it) => typeof it === 'string');
  if (!words(value)) throw refuse(line, 'the list has something other than texts');
  if (value.length > limits.imageListMax) throw refuse(line, `the list has more than ${limits.imageListMax} texts`);
  return value;
}

/** Words as a shell splits them: quotes and backslashes, nothing else. */
export function wordsOf(text: string, line: number, refuse: Refuse): string[] {
  const words: string[] = [];
  let word: string | undefined;
  let quote = '';
  for (let at = 0; at < text.length; at += 1) {
    const letter = text.charAt(at);
    if (letter === '\\' && quote !== "'" && at + 1 < text.length) {
      at += 1;
      word = (word ?? '') + text.charAt(at);
    } else if (quote !== '') {
      if (letter === quote) quote = '';
      else word = (word ?? '') + letter;
    } else if (letter === '"' || letter === "'") {
      quote = letter;
      word ??= '';
    } else if (/\s/.test(letter)) {
      if (word !== undefined) words.push(word);
      word = undefined;
    } else word = (word ?? '') + letter;
  }
  if (quote !== '') throw refuse(line, `a ${quote} is not closed`);
  if (word !== undefined) words.push(word);
  if (words.length > limits.imageListMax) throw refuse(line, `there are more than ${limits.imageListMax} words`);
  return words;
}

/** `$NAME` and `${NAME}` by their values; what is not set is empty, as in docker. */
export function substitute(text: string, env: ReadonlyMap<string, string>, line: number, refuse: Refuse): string {
  const whole = text.replace(/\$(?:\{([^}]*)\}|([A-Za-z_][A-Za-z0-9_]*))/g, (_all, braced?: string, plain?: string) => {
    const name = braced ?? plain ?? '';
    if (/^[A-Za-z_][A-Za-z0-9_]*$/.test(name)) return env.get(name) ?? '';
    throw refuse(line, `\${${name}} is more than a name`, 'E_IMAGE_UNSUPPORTED');
  });
  if (whole.length > limits.imageTextUnits) throw refuse(line, `a text is longer than ${limits.imageTextUnits}`);
  return whole;
}
