/**
 * Members of archives, so that a listed file is recognised and YARA sees it however it is packed. In memory only,
 * within a budget of bytes and members; what a header claims is not believed, and damage ends one member, not the
 * assessment.
 */
import { buffer as collectStream } from 'node:stream/consumers';
import { promisify } from 'node:util';
import { gunzip } from 'node:zlib';
import { fromBufferPromise } from 'yauzl';
import { printableLine } from '../core/json.ts';
import { tarMembers } from './archive.ts';

export interface Member {
  readonly name: string;
  readonly content: Buffer;
}

export interface Unpacked {
  readonly members: readonly Member[];
  /** Bytes for which there was no room: the budget ended, or a member is larger than what is left of it. */
  readonly left: boolean;
  /** Members that no key or no library opens. */
  readonly closed: boolean;
  /** Whatever it claims, so much came out of so little that no honest file is packed like that. */
  readonly bomb: boolean;
}

export interface Budget {
  readonly bytes: number;
  readonly members: number;
}

const NOTHING: Unpacked = Object.freeze({ members: [], left: false, closed: false, bomb: false });
/** As in content.ts: no honest archive shrinks that much. */
const BOMB_RATIO = 100;
/** Recognised, and not opened here. */
const CLOSED = /x-7z-compressed|x-rar|x-bzip2|x-xz|zstd|x-lzip|x-compress|vnd\.ms-cab|x-ace|x-arj/;
const NAME_UNITS = 100;

/** `type`: the media type by content. Never rejects. */
export async function unpack(bytes: Buffer, type: string, budget: Budget): Promise<Unpacked> {
  if (bytes.length > 4 && bytes.readUInt32LE(0) === 0x0403_4b50) return await unpackZip(bytes, budget);
  if (type === 'application/x-tar') return unpackTar(bytes, budget);
  if (type === 'application/gzip') return await unpackGzip(bytes, budget);
  return CLOSED.test(type) ? { ...NOTHING, closed: true } : NOTHING;
}

async function unpackZip(bytes: Buffer, budget: Budget): Promise<Unpacked> {
  const members: Member[] = [];
  let [room, left, closed] = [budget.bytes, false, false];
  try {
    // Raw names: a name that would leave a folder is a sign elsewhere, and no reason not to look at the member.
    const zip = await fromBufferPromise(bytes, { lazyEntries: true, decodeStrings: false });
    for await (const entry of zip.eachEntry()) {
      // Not decoded, the name is bytes, whatever the types say.
      const name = printableLine((entry.fileName as unknown as Buffer).toString('utf8'), NAME_UNITS);
      if (name.endsWith('/')) continue;
      if (members.length >= budget.members || entry.uncompressedSize > room) left = true;
      else if (entry.isEncrypted() || !entry.canDecodeFileData()) closed = true;
      else {
        // The stream ends with an error at the first byte beyond the size that was promised.
        const content = await zip.openReadStreamPromise(entry).then(collectStream).catch(() => undefined);
        if (content === undefined) continue;
        room -= content.length;
        members.push({ name, content });
      }
      if (members.length >= budget.members && left) break;
    }
  } catch {
    // A damaged table: what was read counts.
  }
  return { ...NOTHING, members, left, closed };
}

function unpackTar(bytes: Buffer, budget: Budget): Unpacked {
  const members: Member[] = [];
  let room = budget.bytes;
  for (const { name, start, size, isFile } of tarMembers(bytes)) {
    if (!isFile) continue;
    if (members.length >= budget.members || size > room) return { ...NOTHING, members, left: true };
    const content = bytes.subarray(start, start + size);
    room -= content.length;
    members.push({ name: printableLine(name, NAME_UNITS), content });
  }
  return { ...NOTHING, members };
}

const unzip = promisify(gunzip);

async function unpackGzip(bytes: Buffer, { bytes: maxOutputLength, members }: Budget): Promise<Unpacked> {
  if (members < 1 || maxOutputLength < 1) return { ...NOTHING, left: true };
  try {
    const content = await unzip(bytes, { maxOutputLength });
    return { ...NOTHING, members: [{ name: 'content', content }] };
  } catch (thrown) {
    const { code } = thrown as NodeJS.ErrnoException;
    const left = code === 'ERR_BUFFER_TOO_LARGE';
    return { ...NOTHING, left, bomb: left && maxOutputLength > bytes.length * BOMB_RATIO };
  }
}
