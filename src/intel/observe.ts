/**
 * Everything in an event that somebody may have an opinion about: addresses, names, links, hashes, attachments,
 * wherever they stand, also inside JSON inside base64 and in members of archives. Nothing recurses and everything is
 * counted, so an event of any size and shape ends in a bounded time; what was not looked at is a sign of its own.
 */
import { createHash } from 'node:crypto';
import { printableLine } from '../core/json.ts';
import { limits } from '../core/limits.ts';
import { inspect } from './content.ts';
import type { Claim, Sign } from './content.ts';
import { normalise } from './indicator.ts';
import type { IndicatorKind } from './indicator.ts';
import { visitObservables } from './text.ts';
import { unpack } from './unpack.ts';

export interface Observable {
  readonly kind: IndicatorKind;
  /** Normalised. */
  readonly value: string;
  /** Where it was seen first; `whereOf` writes it out, which few of them need. */
  readonly place: Place;
}

export interface Attachment {
  readonly where: string;
  readonly name: string;
  readonly declaredType: string;
  /** Media type by content. */
  readonly type: string;
  readonly bytes: number;
  readonly unpackedBytes: number;
  readonly sha256: string;
  readonly content: Buffer;
}

export interface Observed {
  readonly observables: readonly Observable[];
  readonly attachments: readonly Attachment[];
  readonly signs: readonly Sign[];
  /** Of the event's JSON as far as it was followed. */
  readonly depth: number;
  readonly nodes: number;
  readonly bytes: number;
}

export interface ObserveInput {
  /** Parsed JSON of the event. */
  readonly value: unknown;
  /** Length of its text. */
  readonly bytes: number;
  /** The text itself, for YARA. */
  readonly text?: Buffer;
  /** Who sent it, when that is known from the connection. */
  readonly sourceAddress?: string;
}

/** A key and what it is below of. */
export interface Place {
  readonly key: string;
  readonly parent: Place | undefined;
  readonly depth: number;
}

interface Encoded {
  readonly content: Buffer;
  readonly where: string;
  readonly claim: Claim;
  readonly layer: number;
}

/** Never throws on any event, and the same event always gives the same answer. */
export async function observe({ value, bytes, sourceAddress }: ObserveInput): Promise<Observed> {
  const observer = new Observer();
  const source = sourceAddress === undefined ? undefined : normalise('ip', sourceAddress);
  if (source !== undefined) observer.add('ip', source, named('source address'));
  observer.walk(value, undefined, 0);
  const attachments: Attachment[] = [];
  // Those found inside an attachment join the queue.
  for (let at = 0; at < observer.encoded.length; at++) {
    const encoded = observer.encoded[at];
    if (encoded !== undefined) attachments.push(await observer.open(encoded));
  }
  const { observables, signs, depth, nodes } = observer;
  return { observables: [...observables.values()], attachments, signs, depth, nodes, bytes };
}

class Observer {
  readonly observables = new Map<string, Observable>();
  readonly encoded: Encoded[] = [];
  readonly signs: Sign[] = [];
  depth = 0;
  nodes = 0;
  #units = 0;
  #bytes = 0;
  #matches = 0;
  readonly #unseen = new Set<string>();

  add(kind: IndicatorKind, value: string, place: Place): void {
    const key = `${kind} ${value}`;
    if (this.observables.has(key)) return;
    if (this.observables.size >= limits.observablesMax) this.#notSeen(`more than ${limits.observablesMax} observables`);
    else this.observables.set(key, { kind, value, place });
  }

  /** `prefix`: where the value itself stands; undefined for the event. */
  walk(root: unknown, prefix: string | undefined, layer: number): void {
    const open: { value: unknown; place: Place; claim: Claim }[] = [
      { value: root, place: { key: prefix ?? '', parent: undefined, depth: 0 }, claim: NO_CLAIM },
    ];
    for (let item = open.pop(); item !== undefined; item = open.pop()) {
      const { value, place, claim } = item;
      if (++this.nodes > limits.observeNodesMax) return this.#notSeen(`more than ${limits.observeNodesMax} values`);
      if (typeof value === 'string') this.#readString(value, place, claim, layer);
      if (typeof value !== 'object' || value === null) continue;
      this.depth = Math.max(this.depth, place.depth + 1);
      if (place.depth >= limits.observeDepthMax) {
        this.#notSeen(`nested deeper than ${limits.observeDepthMax} levels`);
        continue;
      }
      const entries = Object.entries(value);
      const own = Array.isArray(value) ? claim : claimOf(value as Readonly<Record<string, unknown>>);
      // From the back, so that the first is looked at first.
      for (let at = Math.min(entries.length, limits.observeNodesMax) - 1; at >= 0; at--) {
        const [key, child] = entries[at] ?? ['', undefined];
        const below = { key, parent: place, depth: place.depth + 1 };
        if (key === '__proto__' || (key === 'constructor' && isPrototypeProbe(child))) {
          this.#sign({ name: 'prototype-key', where: whereOf(below), what: `key ${key}` });
        }
        if (!Array.isArray(value) && /[.:@]|^[0-9a-f]{32,}$/i.test(key)) this.#readText(key, below);
        if (typeof child === 'string' || (typeof child === 'object' && child !== null)) {
          open.push({ value: child, place: below, claim: own });
        } else this.nodes += 1;
      }
    }
  }

  async open({ content, where, claim, layer }: Encoded): Promise<Attachment> {
    const sha256 = createHash('sha256').update(content).digest('hex');
    const place = named(where);
    for (const algorithm of ['md5', 'sha1'])
      this.add('hash', createHash(algorithm).update(content).digest('hex'), place);
    this.add('hash', sha256, place);
    const { type, unpackedBytes, members, signs } = await inspect(content, claim);
    for (const sign of signs) this.#sign({ ...sign, where });
    for (const member of members) this.#readText(member, named(`${where} member`));
    if (/^text\/|json|xml|html|svg|rtf|pdf/.test(type)) {
      const text = content.toString('utf8');
      const json = type === 'application/json' ? jsonOf(text) : undefined;
      if (json !== undefined) this.walk(json, where, layer);
      else this.#readText(text, place);
    }
    await this.#unpack({ content, where, claim, layer }, type);
    return {
      where,
      name: claim.name,
      declaredType: claim.type,
      type,
      bytes: content.length,
      unpackedBytes,
      sha256,
      content,
    };
  }

  /** Its members join the queue, as if the event had carried them. */
  async #unpack({ content, where, layer }: Encoded, type: string): Promise<void> {
    const room = {
      bytes: limits.attachmentBytesMax - this.#bytes,
      members: layer < limits.attachmentLayersMax ? limits.attachmentsMax - this.encoded.length : 0,
    };
    const { members, left, closed, bomb } = await unpack(content, type, room);
    for (const member of members) {
      this.#attach(member.content, `${where}!${member.name}`, { name: member.name, type: '' }, layer + 1);
    }
    if (closed) this.#notSeen(`${type} that is not opened, or needs a key`);
    if (left) this.#notSeen('an archive with more than is unpacked');
    if (bomb) this.#sign({ name: 'archive-bomb', where, what: `${content.length} bytes become over ${room.bytes}` });
  }

  #readString(text: string, place: Place, claim: Claim, layer: number): void {
    const uri = text.startsWith('data:') ? /^data:([\w.+/-]{0,100})(?:;[\w=.-]{0,60}){0,4};base64,/.exec(text) : null;
    const body = uri === null ? text : text.slice(uri[0].length);
    const forced = uri !== null || (place.depth === 1 && place.key === 'data_base64');
    if (forced || looksEncoded(body)) {
      const type = uri?.[1] ?? claim.type;
      this.#attach(Buffer.from(body, 'base64'), whereOf(place), { name: claim.name, type }, layer + 1);
      return;
    }
    this.#readText(text, place);
    if (text.length < BLOCK_UNITS_MIN) return;
    // A mail's body, or what follows `-EncodedCommand`.
    for (const [block] of text.matchAll(BLOCKS)) {
      if (looksEncoded(block)) this.#attach(Buffer.from(block, 'base64'), `${whereOf(place)} block`, claim, layer + 1);
    }
  }

  #attach(content: Buffer, where: string, claim: Claim, layer: number): void {
    if (layer > limits.attachmentLayersMax) this.#notSeen(`encoded more than ${limits.attachmentLayersMax} times`);
    else if (this.encoded.length >= limits.attachmentsMax)
      this.#notSeen(`more than ${limits.attachmentsMax} attachments`);
    else if (this.#bytes + content.length > limits.attachmentBytesMax)
      this.#notSeen('more bytes of attachments than are opened');
    else {
      this.#bytes += content.length;
      this.encoded.push({ content, where, claim, layer });
    }
  }

  #readText(text: string, place: Place): void {
    if (text.length < 4) return;
    const room = limits.observeUnitsMax - this.#units;
    if (text.length > room) this.#notSeen(`more than ${limits.observeUnitsMax} characters of text`);
    if (room <= 0) return;
    this.#units += text.length;
    visitObservables(text.slice(0, room), (kind, value) => {
      if (++this.#matches > limits.observeMatchesMax) {
        this.#notSeen(`more than ${limits.observeMatchesMax} values in texts`);
        return false;
      }
      this.add(kind, value, place);
      return true;
    });
  }

  #notSeen(what: string): void {
    if (this.#unseen.has(what)) return;
    this.#unseen.add(what);
    this.#sign({ name: 'not-fully-seen', where: 'event', what });
  }

  #sign(sign: Sign): void {
    if (this.signs.length < limits.observablesMax) this.signs.push(sign);
  }
}

const NO_CLAIM: Claim = Object.freeze({ name: '', type: '' });
const NAME_KEYS = ['filename', 'fileName', 'file_name', 'name', 'key'];
const TYPE_KEYS = [
  'contentType',
  'content_type',
  'content-type',
  'mimeType',
  'mime_type',
  'mediaType',
  'datacontenttype',
  'type',
];

/** What the object that holds an attachment says about it. */
function claimOf(holder: Readonly<Record<string, unknown>>): Claim {
  const first = (keys: readonly string[], form: RegExp): string => {
    for (const key of keys) {
      const value = Object.hasOwn(holder, key) ? holder[key] : undefined;
      if (typeof value === 'string' && value.length <= 255 && form.test(value)) return printableLine(value, 255);
    }
    return '';
  };
  return { name: first(NAME_KEYS, /\.\w{1,10}\s*$/), type: first(TYPE_KEYS, /^[\w.+-]+\/[\w.+*-]+/) };
}

const ENCODED_UNITS_MIN = 64;
const NOT_BASE64 = /[^A-Za-z0-9+/_\r\n-]/;

/** A long run of base64 inside of a text, in one line or in the lines of a mail. */
const BLOCK_UNITS_MIN = 128;
const BLOCKS = /(?:[A-Za-z0-9+/]{60,80}\r?\n){2,2000}[A-Za-z0-9+/]{0,80}={0,2}|[A-Za-z0-9+/]{128,65536}={0,2}/g;
/** Long enough, only characters of base64, and not a hash or a word. */
function looksEncoded(text: string): boolean {
  if (text.length < ENCODED_UNITS_MIN || NOT_BASE64.test(text.replace(/={1,2}\s*$/, ''))) return false;
  return !/^[0-9a-f]+$/i.test(text.slice(0, 200)) && /[A-Z]/.test(text) && /[a-z]/.test(text);
}

function isPrototypeProbe(value: unknown): boolean {
  return typeof value === 'object' && value !== null && Object.hasOwn(value, 'prototype');
}

function jsonOf(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

const PATH_KEYS = 12;
/** Places that have a name of their own may be longer than a key. */
const WHERE_UNITS = 200;

function named(key: string): Place {
  return { key, parent: undefined, depth: 0 };
}

/** As in `data.user.link` or `source address`. */
export function whereOf(place: Place): string {
  const keys: string[] = [];
  for (let at: Place | undefined = place; at !== undefined && keys.length <= PATH_KEYS; at = at.parent) {
    if (at.key !== '') keys.unshift(printableLine(at.key, WHERE_UNITS));
  }
  return keys.length > PATH_KEYS ? `…${keys.slice(1).join('.')}` : keys.join('.');
}
