/**
 * Keys of the repository. `MAYFLY_HOME/keys/signing.key` (0600) is this machine's own: set-up makes it, and it signs
 * what is built, imported and tagged here. `keys/trusted/HEX.pem` are the public keys whose images run here; the
 * machine's own is among them, so a home without its private key still runs what it has, and changes nothing.
 */
import { createPrivateKey, createPublicKey, sign } from 'node:crypto';
import type { KeyObject } from 'node:crypto';
import { rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { MayflyError } from '../core/errors.ts';
import { limits } from '../core/limits.ts';
import type { Random } from '../core/random.ts';
import { keyIdOf, parsePublicKey } from './envelope.ts';
import type { KeyId, PublicKeys, Signer } from './envelope.ts';
import { listOrNone, makeFolder, readAtMost, writeDurably, writeOnce } from '../core/files.ts';
import { isDigest } from './manifest.ts';

export interface Keys {
  /** Rejects with E_IMAGE_KEY when a file is not the key that its name says. */
  trusted(): Promise<PublicKeys>;
  /** This machine's own key, made when there is none. Rejects with E_IMAGE_KEY. */
  own(): Promise<Signer>;
  /** Public half of `own`, as PEM. */
  ownPublic(): Promise<string>;
  /** Resolves to the key's id. Rejects with E_IMAGE_KEY. */
  trust(pem: Buffer, from: string): Promise<KeyId>;
  /** False when it was not trusted. Rejects with E_USAGE for what is no key's id, and for this machine's own. */
  distrust(keyId: KeyId): Promise<boolean>;
}

/** PKCS #8 of an Ed25519 key, up to its 32 bytes (RFC 8410). */
const PKCS8 = Buffer.from('302e020100300506032b657004220420', 'hex');
const SEED_BYTES = 32;

export function openKeys(home: string, random: Random): Keys {
  const folder = join(home, 'keys');
  const trustedFolder = join(folder, 'trusted');
  const privatePath = join(folder, 'signing.key');
  const publicPath = (keyId: KeyId): string => join(trustedFolder, `${keyId.slice('sha256:'.length)}.pem`);

  async function trust(key: KeyObject): Promise<KeyId> {
    const keyId = keyIdOf(key);
    if ((await listOrNone(trustedFolder)).length >= limits.imageKeysMax) {
      throw new MayflyError('E_IMAGE_KEY', `More than ${limits.imageKeysMax} trusted keys in ${trustedFolder}.`);
    }
    await makeFolder(folder, 0o700);
    await makeFolder(trustedFolder, 0o700);
    const pem = key.export({ type: 'spki', format: 'pem' });
    await writeOnce(publicPath(keyId), pem);
    const kept = await readAtMost(publicPath(keyId), limits.imageSmallFileBytesMax);
    // Somebody's damage, not another key: a key's file has its digest for a name.
    if (String(kept) !== String(pem)) await writeDurably(publicPath(keyId), pem);
    return keyId;
  }

  async function ownKey(): Promise<KeyObject> {
    const found = await stat(privatePath).catch(() => undefined);
    if (found === undefined) {
      const bytes = Buffer.concat([PKCS8, random.bytes(SEED_BYTES)]);
      const key = createPrivateKey({ key: bytes, format: 'der', type: 'pkcs8' });
      await makeFolder(folder, 0o700);
      await writeOnce(privatePath, key.export({ type: 'pkcs8', format: 'pem' }), 0o600);
      // Another process may have been quicker: then its key is the one that is here.
      const kept = await readOwn();
      await trust(createPublicKey(kept));
      return kept;
    }
    if ((found.mode & 0o077) !== 0) {
      throw new MayflyError('E_IMAGE_KEY', `${privatePath} can be read by others: it may not be only yours any more.`);
    }
    return await readOwn();
  }

  async function readOwn(): Promise<KeyObject> {
    try {
      const key = createPrivateKey(await readAtMost(privatePath, limits.imageSmallFileBytesMax));
      if (key.asymmetricKeyType !== 'ed25519') throw new Error(`it is for ${key.asymmetricKeyType}`);
      return key;
    } catch (cause) {
      throw new MayflyError('E_IMAGE_KEY', `${privatePath} is no Ed25519 key: ${(cause as Error).message}`, { cause });
    }
  }

  return {
    async trusted() {
      const keys = new Map<KeyId, KeyObject>();
      for (const file of await listOrNone(trustedFolder)) {
        if (!file.endsWith('.pem')) continue;
        const path = join(trustedFolder, file);
        const pem = await readAtMost(path, limits.imageSmallFileBytesMax).catch((cause: unknown) => {
          throw new MayflyError('E_IMAGE_KEY', `${path} cannot be read: ${(cause as Error).message}`, { cause });
        });
        const key = parsePublicKey(pem, path);
        if (publicPath(keyIdOf(key)) !== path) throw new MayflyError('E_IMAGE_KEY', `${path} has another key in it.`);
        keys.set(keyIdOf(key), key);
      }
      return keys;
    },
    async own() {
      const key = await ownKey();
      return { keyId: keyIdOf(createPublicKey(key)), sign: (message) => sign(null, message, key) };
    },
    async ownPublic() {
      return String(createPublicKey(await ownKey()).export({ type: 'spki', format: 'pem' }));
    },
    trust: async (pem, from) => await trust(parsePublicKey(pem, from)),
    async distrust(keyId) {
      if (!isDigest(keyId)) throw new MayflyError('E_USAGE', `"${keyId}" is no key: write sha256: and 64 hex digits`);
      const hasOwn = (await stat(privatePath).catch(() => undefined)) !== undefined;
      if (hasOwn && keyIdOf(createPublicKey(await ownKey())) === keyId) {
        throw new MayflyError('E_USAGE', 'this machine\'s own key signs its tags: without it no image has a name');
      }
      const there = (await stat(publicPath(keyId)).catch(() => undefined)) !== undefined;
      await rm(publicPath(keyId), { force: true });
      return there;
    },
  };
}
