/**
 * JSON from strangers, and JSON that is hashed.
 *
 * `parseStrict` never lets nesting reach the parser's stack, accepts only valid UTF-8 and reports keys that occur twice
 * (two readers of one text must not see two meanings). Keys like `__proto__` are data: JSON.parse defines them as own
 * properties, and nothing here assigns by key afterwards.
 *
 * `canonicalJson` is RFC 8785: one value has one text, so its digest can stand for it.
 */
import { createHash } from 'node:crypto';

export type JsonProblem =
  | { readonly kind: 'size'; readonly bytes: number }
  | { readonly kind: 'depth'; readonly offset: number }
  | { readonly kind: 'utf8' }
  | { readonly kind: 'duplicate'; readonly key: string }
  | { readonly kind: 'syntax'; readonly message: string };

export type JsonParsed =
  | { readonly ok: true; readonly value: unknown; readonly text: string; readonly members: JsonMembers }
  | { readonly ok: false; readonly problem: JsonProblem };

/** Where the values of the outermost object stand in the text: `[start, end)`, to be passed on verbatim. */
type JsonMembers = ReadonlyMap<string, readonly [number, number]>;

export interface JsonBounds {
  readonly bytesMax: number;
  readonly depthMax: number;
}

export function parseStrict(bytes: Buffer, bounds: JsonBounds): JsonParsed {
  if (bytes.length > bounds.bytesMax) return problem({ kind: 'size', bytes: bytes.length });
  let text: string;
  try {
    text = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    return problem({ kind: 'utf8' });
  }
  const scan = scanStructure(text, bounds.depthMax);
  if (scan.tooDeepAt !== undefined) return problem({ kind: 'depth', offset: scan.tooDeepAt });
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (thrown) {
    return problem({ kind: 'syntax', message: printableLine((thrown as Error).message, 200) });
  }
  if (scan.duplicate !== undefined) return problem({ kind: 'duplicate', key: printableLine(scan.duplicate, 100) });
  return { ok: true, value, text, members: scan.members };
}

function problem(found: JsonProblem): JsonParsed {
  return { ok: false, problem: found };
}

interface Structure {
  tooDeepAt?: number;
  duplicate?: string;
  readonly members: Map<string, readonly [number, number]>;
}

const QUOTE = 0x22;
const BACKSLASH = 0x5c;

/** One pass without recursion. On text that is not JSON its answers mean nothing, except that it always ends. */
function scanStructure(text: string, depthMax: number): Structure {
  const found: Structure = { members: new Map() };
  /** Keys of each open object; undefined for an array. */
  const open: (Set<string> | undefined)[] = [];
  let member: { readonly key: string; readonly start: number } | undefined;
  const endMember = (end: number): void => {
    if (open.length === 1 && member !== undefined) found.members.set(member.key, [member.start, end]);
    if (open.length === 1) member = undefined;
  };
  for (let i = 0; i < text.length; i++) {
    switch (text.charCodeAt(i)) {
      case 0x7b: // {
      case 0x5b: // [
        open.push(text.charCodeAt(i) === 0x7b ? new Set() : undefined);
        if (open.length > depthMax) return { ...found, tooDeepAt: i };
        break;
      case 0x7d: // }
      case 0x5d: // ]
        endMember(i);
        open.pop();
        break;
      case 0x2c: // ,
        endMember(i);
        break;
      case QUOTE: {
        const end = endOfString(text, i);
        const keys = open.at(-1);
        const colon = skipSpace(text, end);
        if (keys !== undefined && text.charCodeAt(colon) === 0x3a) {
          const key = decodeString(text.slice(i, end));
          if (keys.has(key)) found.duplicate ??= key;
          keys.add(key);
          if (open.length === 1) member = { key, start: colon + 1 };
          i = colon;
        } else {
          i = end - 1;
        }
        break;
      }
      default:
    }
  }
  return found;
}

/** Index after the closing quote of the string that opens at `start`; the text's length when it never closes. */
function endOfString(text: string, start: number): number {
  for (let i = start + 1; i < text.length; i++) {
    const unit = text.charCodeAt(i);
    if (unit === BACKSLASH) i += 1;
    else if (unit === QUOTE) return i + 1;
  }
  return text.length;
}

function skipSpace(text: string, start: number): number {
  let i = start;
  while (i < text.length && ' \t\r\n'.includes(text.charAt(i))) i += 1;
  return i;
}

function decodeString(literal: string): string {
  if (!literal.includes('\\')) return literal.slice(1, -1);
  try {
    return String(JSON.parse(literal));
  } catch {
    return literal;
  }
}

/** Levels of a value that Mayfly itself makes; its formats have fewer than ten. */
const CANONICAL_DEPTH_MAX = 256;

/** RFC 8785. Throws TypeError for what JSON cannot express, `undefined` members included. */
export function canonicalJson(value: unknown, depth = 0): string {
  if (depth > CANONICAL_DEPTH_MAX) throw new TypeError('canonicalJson: nested too deeply');
  switch (typeof value) {
    case 'boolean':
      return String(value);
    case 'number':
      if (!Number.isFinite(value)) throw new TypeError(`canonicalJson: ${value} is not a JSON number`);
      return JSON.stringify(value);
    case 'string':
      if (!value.isWellFormed()) throw new TypeError('canonicalJson: lone surrogate in a string');
      return JSON.stringify(value);
    case 'object': {
      if (value === null) return 'null';
      if (Array.isArray(value)) return `[${value.map((item) => canonicalJson(item, depth + 1)).join(',')}]`;
      const members = Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1));
      const texts = members.map(([key, item]) => `${canonicalJson(key)}:${canonicalJson(item, depth + 1)}`);
      return `{${texts.join(',')}}`;
    }
    default:
      throw new TypeError(`canonicalJson: ${typeof value} is not JSON`);
  }
}

/** `sha256:` and 64 hex digits. */
export function digestOf(bytes: Buffer | string): string {
  return `sha256:${createHash('sha256').update(bytes).digest('hex')}`;
}

/** Neither null nor an array: what has members by name. */
export function isObject(value: unknown): value is { readonly [name: string]: unknown } {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** Someone else's text on one line of ours: no control characters, at most `unitsMax` UTF-16 units. */
export function printableLine(text: string, unitsMax: number): string {
  return printableText(text.slice(0, unitsMax + 1), unitsMax).replace(/[\n\t]+/g, ' ');
}

/** The same with line breaks and tabs kept: a stack, a console. */
export function printableText(text: string, unitsMax: number): string {
  const controls = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u200e\u200f\u202a-\u202e\u2066-\u2069]/g;
  const clean = text.slice(0, unitsMax + 1).replace(/\r\n?/g, '\n').replace(controls, '').toWellFormed();
  return clean.length > unitsMax ? `${clean.slice(0, unitsMax - 1).toWellFormed()}…` : clean;
}
