/**
 * A manifest with its signatures, and tags with theirs: what is read from disks and downloads before anything in it is
 * believed. Pure: parsing and arithmetic, no files. A signature is Ed25519 over a line that says what kind of thing is
 * signed and the canonical bytes, so no signature of one kind is good for another.
 */
import { createPublicKey, verify } from 'node:crypto';
import type { KeyObject } from 'node:crypto';
import { MayflyError } from '../core/errors.ts';
import { canonicalJson, digestOf, isObject, parseStrict } from '../core/json.ts';
import { limits } from '../core/limits.ts';
import { encodeManifest, isDigest, isImageName, manifestDigest, parseManifest } from './manifest.ts';
import type { ImageManifest } from './manifest.ts';

/** `sha256:` and 64 hex digits over the key's SubjectPublicKeyInfo. */
export type KeyId = string;

export type PublicKeys = ReadonlyMap<KeyId, KeyObject>;

export interface Signature {
  readonly algorithm: 'ed25519';
  readonly keyId: KeyId;
  /** 64 bytes, base64. */
  readonly value: string;
}

export interface Envelope {
  readonly digest: string;
  readonly manifest: ImageManifest;
  /** Sorted by key. */
  readonly signatures: readonly Signature[];
}

/** What a name means on this machine at present. */
export interface Tag {
  readonly name: string;
  readonly tag: string;
  readonly digest: string;
}

/** Signs with a private key that this module never sees. */
export interface Signer {
  readonly keyId: KeyId;
  sign(message: Buffer): Buffer;
}

/** Whose word an image is. `wrong`: a trusted key's signature does not fit, so somebody changed the image. */
export type Trust =
  | { readonly kind: 'signed'; readonly keyId: KeyId }
  | { readonly kind: 'unknown'; readonly keyIds: readonly KeyId[] }
  | { readonly kind: 'unsigned' }
  | { readonly kind: 'wrong'; readonly keyId: KeyId };

const MANIFEST_KIND = 'mayfly image manifest v1\n';
const TAG_KIND = 'mayfly image tag v1\n';
const DEPTH_MORE = 2;

export function sealManifest(manifest: ImageManifest, signers: readonly Signer[] = []): Envelope {
  const bytes = encodeManifest(manifest);
  const plain = { digest: manifestDigest(bytes), manifest, signatures: [] };
  return signers.reduce<Envelope>(addSignature, plain);
}

/** Another signature by the same key takes the place of the one before. */
export function addSignature(envelope: Envelope, signer: Signer): Envelope {
  const others = envelope.signatures.filter(({ keyId }) => keyId !== signer.keyId);
  const message = Buffer.concat([Buffer.from(MANIFEST_KIND), encodeManifest(envelope.manifest)]);
  const signatures = [...others, signatureOf(signer, message)].sort((a, b) => (a.keyId < b.keyId ? -1 : 1));
  if (signatures.length > limits.imageSignaturesMax) {
    throw new MayflyError('E_IMAGE_MANIFEST', `More than ${limits.imageSignaturesMax} signatures of one image.`);
  }
  return { ...envelope, signatures };
}

export function trustOf({ manifest, signatures }: Envelope, keys: PublicKeys): Trust {
  const message = Buffer.concat([Buffer.from(MANIFEST_KIND), encodeManifest(manifest)]);
  let signed: KeyId | undefined;
  for (const signature of signatures) {
    const key = keys.get(signature.keyId);
    if (key === undefined) continue;
    if (!fits(signature, message, key)) return { kind: 'wrong', keyId: signature.keyId };
    signed ??= signature.keyId;
  }
  if (signed !== undefined) return { kind: 'signed', keyId: signed };
  if (signatures.length === 0) return { kind: 'unsigned' };
  return { kind: 'unknown', keyIds: signatures.map(({ keyId }) => keyId) };
}

export function encodeEnvelope({ manifest, signatures }: Envelope): Buffer {
  return Buffer.from(canonicalJson({ envelopeVersion: 1, manifest, signatures }));
}

/** Throws E_IMAGE_MANIFEST, also when the manifest is another one than `digest` names. */
export function parseEnvelope(bytes: Buffer, digest?: string): Envelope {
  const it = exactly(canonical(bytes, limits.imageManifestBytesMax), ['envelopeVersion', 'manifest', 'signatures']);
  if (it['envelopeVersion'] !== 1) throw refused('envelopeVersion is not 1');
  const manifestBytes = Buffer.from(canonicalJson(it['manifest']));
  const manifest = parseManifest(manifestBytes);
  const found = manifestDigest(manifestBytes);
  if (digest !== undefined && found !== digest) throw refused(`it is ${found}, not ${digest}`);
  return { digest: found, manifest, signatures: parseSignatures(it['signatures']) };
}

/** A list from JSON. Throws E_IMAGE_MANIFEST. */
export function parseSignatures(value: unknown): readonly Signature[] {
  if (!Array.isArray(value) || value.length > limits.imageSignaturesMax) throw refused('its list of signatures');
  const signatures = value.map(parseSignature);
  const wrong = signatures.some(({ keyId }, at) => at > 0 && keyId <= (signatures[at - 1]?.keyId ?? ''));
  if (wrong) throw refused('its signatures are out of order');
  return signatures;
}

export function encodeTag({ name, tag, digest }: Tag, signer: Signer): Buffer {
  const body = { tagVersion: 1, name, tag, digest };
  return Buffer.from(canonicalJson({ ...body, signature: signatureOf(signer, tagMessage(body)) }));
}

/**
 * Throws E_IMAGE_SIGNATURE unless a trusted key says that exactly this name means this digest: a tag that was copied
 * over another one, edited or made by somebody else is none.
 */
export function parseTag(bytes: Buffer, name: string, tag: string, keys: PublicKeys): Tag {
  const no = (why: string): MayflyError => new MayflyError('E_IMAGE_SIGNATURE', `The tag ${name}:${tag} ${why}.`);
  let it: { readonly [name: string]: unknown };
  let signature: Signature;
  try {
    it = exactly(canonical(bytes, limits.imageSmallFileBytesMax), ['tagVersion', 'name', 'tag', 'digest', 'signature']);
    signature = parseSignature(it['signature']);
  } catch (cause) {
    throw new MayflyError('E_IMAGE_SIGNATURE', `The tag ${name}:${tag} is damaged.`, { cause });
  }
  const { signature: _signature, ...body } = it;
  const { tagVersion, digest } = body;
  if (tagVersion !== 1 || typeof digest !== 'string' || !isDigest(digest)) throw no('is damaged');
  if (body['name'] !== name || body['tag'] !== tag) throw no('is the tag of another name');
  const key = keys.get(signature.keyId);
  if (key === undefined) throw no('was written with a key that is not trusted');
  if (!fits(signature, tagMessage(body), key)) throw no('was changed after it was signed');
  return { name, tag, digest };
}

export type Reference = { readonly digest: string } | { readonly name: string; readonly tag: string };

/** `name`, `name:tag` or `sha256:…`. Undefined for anything else. */
export function parseReference(text: string): Reference | undefined {
  if (isDigest(text)) return { digest: text };
  const [name = '', tag = 'latest', ...more] = text.split(':');
  if (more.length > 0 || name.length > 63 || !isImageName(name) || !TAG.test(tag)) return undefined;
  return { name, tag };
}

export function keyIdOf(key: KeyObject): KeyId {
  return digestOf(key.export({ type: 'spki', format: 'der' }));
}

/** PEM of an Ed25519 public key. Throws E_IMAGE_KEY; a private key is refused, too: it was passed on by mistake. */
export function parsePublicKey(pem: Buffer, from: string): KeyObject {
  const no = (why: string): MayflyError => new MayflyError('E_IMAGE_KEY', `${from} ${why}.`);
  if (!/^-----BEGIN PUBLIC KEY-----\s/.test(pem.toString('latin1'))) throw no('has no public key in PEM');
  let key: KeyObject;
  try {
    key = createPublicKey(pem);
  } catch (cause) {
    throw new MayflyError('E_IMAGE_KEY', `${from} has no public key in PEM.`, { cause });
  }
  if (key.asymmetricKeyType !== 'ed25519') throw no(`has a key for ${key.asymmetricKeyType}, not for Ed25519`);
  return key;
}

const TAG = /^[a-z0-9][a-z0-9._-]{0,62}$/;
/** 64 bytes in base64, in the one way to write them. */
const VALUE = /^[A-Za-z0-9+/]{85}[AQgw]==$/;

function tagMessage(body: unknown): Buffer {
  return Buffer.from(TAG_KIND + canonicalJson(body));
}

function signatureOf(signer: Signer, message: Buffer): Signature {
  return { algorithm: 'ed25519', keyId: signer.keyId, value: signer.sign(message).toString('base64') };
}

function fits(signature: Signature, message: Buffer, key: KeyObject): boolean {
  return verify(null, message, key, Buffer.from(signature.value, 'base64'));
}

function parseSignature(value: unknown): Signature {
  const { algorithm, keyId, value: text } = exactly(value, ['algorithm', 'keyId', 'value']);
  const known = algorithm === 'ed25519' && typeof keyId === 'string' && isDigest(keyId);
  if (!known || typeof text !== 'string' || !VALUE.test(text)) throw refused('one of its signatures');
  return { algorithm, keyId, value: text };
}

function canonical(bytes: Buffer, bytesMax: number): unknown {
  const parsed = parseStrict(bytes, { bytesMax, depthMax: limits.imageManifestDepthMax + DEPTH_MORE });
  if (!parsed.ok) throw refused(`its JSON: ${parsed.problem.kind}`);
  let text: string;
  try {
    text = canonicalJson(parsed.value);
  } catch (cause) {
    throw refused('it has a text that is not Unicode', cause);
  }
  if (text !== parsed.text) throw refused('it is not in canonical form (RFC 8785)');
  return parsed.value;
}

function exactly(value: unknown, names: readonly string[]): { readonly [name: string]: unknown } {
  if (!isObject(value) || Object.keys(value).sort().join() !== [...names].sort().join()) {
    throw refused(`an object has not exactly the fields ${names.join(', ')}`);
  }
  return value;
}

function refused(problem: string, cause?: unknown): MayflyError {
  return new MayflyError('E_IMAGE_MANIFEST', `The signed image is refused: ${problem}.`, { cause });
}
