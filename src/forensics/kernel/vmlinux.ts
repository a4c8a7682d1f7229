/**
 * The guest's kernel as it was built, out of the compressed image that it boots from: sections and, by address, bytes.
 * It is the host's own artefact, checked by digest, so what is read here does not come from a guest.
 */
import { spawn } from 'node:child_process';
import { gunzipSync, zstdDecompressSync } from 'node:zlib';
import { limits } from '../../core/limits.ts';
import { unpackLz4 } from './lz4.ts';

export interface Section {
  readonly name: string;
  readonly address: bigint;
  readonly bytes: Buffer;
}

export interface Vmlinux {
  readonly sections: readonly Section[];
}

/** Rejects with Error when the image is of no kind that is known. */
export async function openVmlinux(image: Buffer): Promise<Vmlinux> {
  return parseElf(await decompress(payloadOf(image)));
}

/** Documentation/arch/x86/boot.rst: the compressed kernel within a bzImage. */
function payloadOf(image: Buffer): Buffer {
  if (image.length < 0x1000 || image.toString('latin1', 0x202, 0x206) !== 'HdrS') throw new Error('no bzImage');
  const setupSectors = image.readUInt8(0x1f1) || 4;
  const start = (setupSectors + 1) * 512 + image.readUInt32LE(0x248);
  return image.subarray(start, start + image.readUInt32LE(0x24c));
}

async function decompress(payload: Buffer): Promise<Buffer> {
  const magic = payload.readUInt32BE(0);
  const bounds = { maxOutputLength: limits.kernelBytesMax };
  // Behind the stream stands the length of what it holds.
  const stream = payload.subarray(0, payload.length - 4);
  if (magic === 0xfd377a58) return await runXz(payload);
  if (magic === 0x28b52ffd) return zstdDecompressSync(stream, bounds);
  if (magic === 0x02214c18) return unpackLz4(payload.subarray(4), limits.kernelBytesMax);
  if (magic >>> 16 === 0x1f8b) return gunzipSync(stream, bounds);
  throw new Error(`a kernel of an unknown compression (${magic.toString(16)})`);
}

/** Node has no xz; set-up has installed the program to unpack kernels with. */
function runXz(payload: Buffer): Promise<Buffer> {
  const child = spawn('xz', ['--decompress', '--stdout', '--single-stream'], { stdio: ['pipe', 'pipe', 'ignore'] });
  const chunks: Buffer[] = [];
  let bytes = 0;
  return new Promise((resolve, reject) => {
    child.once('error', reject);
    child.stdin.on('error', () => {}).end(payload);
    child.stdout.on('data', (chunk: Buffer) => {
      bytes += chunk.length;
      if (bytes > limits.kernelBytesMax) child.kill('SIGKILL');
      else chunks.push(chunk);
    });
    // Its status is of no use: what follows the stream is no error.
    child.once('close', () => (bytes === 0 || bytes > limits.kernelBytesMax
      ? reject(new Error('xz could not unpack the kernel'))
      : resolve(Buffer.concat(chunks))));
  });
}

function parseElf(file: Buffer): Vmlinux {
  if (file.readUInt32BE(0) !== 0x7f454c46 || file.readUInt8(4) !== 2) throw new Error('the kernel is no 64-bit ELF');
  const table = Number(file.readBigUInt64LE(0x28));
  const [size, count, names] = [file.readUInt16LE(0x3a), file.readUInt16LE(0x3c), file.readUInt16LE(0x3e)];
  const header = (index: number): { name: number; type: number; address: bigint; at: number; bytes: number } => {
    const at = table + index * size;
    return {
      name: file.readUInt32LE(at), type: file.readUInt32LE(at + 4), address: file.readBigUInt64LE(at + 0x10),
      at: Number(file.readBigUInt64LE(at + 0x18)), bytes: Number(file.readBigUInt64LE(at + 0x20)),
    };
  };
  const strings = header(names);
  const sections: Section[] = [];
  for (let index = 1; index < count; index++) {
    const { name, type, address, at, bytes } = header(index);
    // 8: without content.
    if (type === 8) continue;
    const start = strings.at + name;
    const text = file.toString('latin1', start, file.indexOf(0, start));
    sections.push({ name: text, address, bytes: file.subarray(at, at + bytes) });
  }
  return { sections };
}
