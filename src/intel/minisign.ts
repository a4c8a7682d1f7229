/**
 * Signatures of feeds in the format of minisign (Ed25519 over BLAKE2b-512), which publishers can make with
 * `minisign -S` and anybody can check by hand. The trusted comment is signed as well; its time keeps an old copy from
 * coming back. Pure, and fuzzed.
 */
import { createHash, createPublicKey, verify } from 'node:crypto';
import type { Hash, KeyObject } from 'node:crypto';

export interface MinisignKey {
  readonly id: Buffer;
  readonly key: KeyObject;
}

/** What a raw Ed25519 key is preceded by in SPKI. */
const SPKI = Buffer.from('302a300506032b6570032100', 'hex');
const KEY_BYTES = 2 + 8 + 32;
const SIGNATURE_BYTES = 2 + 8 + 64;
const COMMENT_UNITS_MAX = 512;
/** Ed25519 over the hash of a file, minisign's own default; the older form would need the whole file in memory. */
const PREHASHED = 'ED';

/** The second line of a `.pub` file. Undefined when it is none. */
export function parseMinisignKey(text: string): MinisignKey | undefined {
  const bytes = decode(text.trim(), KEY_BYTES);
  if (bytes === undefined || bytes.toString('latin1', 0, 2) !== 'Ed') return undefined;
  const key = createPublicKey({ key: Buffer.concat([SPKI, bytes.subarray(10)]), format: 'der', type: 'spki' });
  return { id: bytes.subarray(2, 10), key };
}

/** What a signature is made over. */
export function minisignHash(): Hash {
  return createHash('blake2b512');
}

export type Checked =
  /** `signedAt`: seconds since the epoch, 0 where the comment has none. */
  | { readonly ok: true; readonly signedAt: number }
  | { readonly ok: false; readonly why: string };

/** `signature`: content of the `.minisig` file; `hash`: digest of `minisignHash` over the file. */
export function checkMinisign(signature: string, hash: Buffer, { id, key }: MinisignKey): Checked {
  const [, line = '', comment = '', globalLine = ''] = signature.split(/\r?\n/, 4);
  const bytes = decode(line, SIGNATURE_BYTES);
  const global = decode(globalLine, 64);
  const prefix = 'trusted comment: ';
  if (bytes === undefined || global === undefined || !comment.startsWith(prefix)) return bad('it is no minisign file');
  if (comment.length > COMMENT_UNITS_MAX) return bad('its comment is too long');
  if (bytes.toString('latin1', 0, 2) !== PREHASHED)
    return bad('it is of the old form; sign with minisign 0.10 or newer');
  if (!bytes.subarray(2, 10).equals(id)) return bad('it was made with another key');
  const own = bytes.subarray(10);
  if (!verify(null, hash, key, own)) return bad('it is not over this content');
  const trusted = comment.slice(prefix.length);
  if (!verify(null, Buffer.concat([own, Buffer.from(trusted)]), key, global)) return bad('its comment was changed');
  return { ok: true, signedAt: Number(/(?:^|\t)timestamp:(\d{1,10})(?:\t|$)/.exec(trusted)?.[1] ?? 0) };
}

function bad(why: string): Checked {
  return { ok: false, why };
}

function decode(text: string, length: number): Buffer | undefined {
  if (!/^[A-Za-z0-9+/]{1,200}={0,2}$/.test(text)) return undefined;
  const bytes = Buffer.from(text, 'base64');
  return bytes.length === length ? bytes : undefined;
}
