/**
 * From a policy's text to what a kernel loads: `apparmor_parser` of the host, which needs no AppArmor of its own, for
 * the features of the guest's kernel. Without those features it would silently emit a weaker policy, so there is no way
 * to compile without them. Text and features decide the result, so it is kept under the digest of both.
 */
import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdir, rename, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { MayflyError } from '../core/errors.ts';
import { readAtMost } from '../core/files.ts';
import { canonicalJson, digestOf, printableLine } from '../core/json.ts';
import { limits } from '../core/limits.ts';

/** Rejects with E_POLICY_COMPILE. `features`: as the guest's kernel says them, in apparmor_parser's own form. */
export type CompilePolicy = (text: string, features: string) => Promise<Buffer>;

export interface CompilerOptions {
  /** MAYFLY_HOME; results are in `policies`. */
  readonly home: string;
  /** Tells this process from others that write the same file. */
  readonly builder: string;
}

/** Bumped when the same text and features would have to give another result. */
const COMPILER_VERSION = 1;
/** Before each kept result: SHA-256 of it, so that a damaged file is not used. */
const CHECK_BYTES = 32;

export function policyCompiler({ home, builder }: CompilerOptions): CompilePolicy {
  const folder = join(home, 'policies');
  const known = new Map<string, Promise<Buffer>>();
  return (text, features) => {
    const key = digestOf(canonicalJson({ compilerVersion: COMPILER_VERSION, text, features })).slice('sha256:'.length);
    const before = known.get(key);
    if (before !== undefined) return before;
    if (known.size >= limits.policiesKept) known.clear();
    const compiled = keptOrCompiled(folder, key, builder, text, features);
    known.set(key, compiled);
    compiled.catch(() => known.delete(key));
    return compiled;
  };
}

async function keptOrCompiled(
  folder: string,
  key: string,
  builder: string,
  text: string,
  features: string,
): Promise<Buffer> {
  const path = join(folder, key);
  const kept = await readAtMost(path, CHECK_BYTES + limits.policyBytesMax).catch(() => Buffer.alloc(0));
  const bytes = kept.subarray(CHECK_BYTES);
  if (bytes.length > 0 && checkOf(bytes).equals(kept.subarray(0, CHECK_BYTES))) return bytes;
  const half = `${path}.${builder}`;
  try {
    await mkdir(folder, { recursive: true, mode: 0o700 });
    // The parser takes features from a file only.
    await writeFile(half, features, { mode: 0o600 });
    const compiled = await compile(text, half);
    await writeFile(half, Buffer.concat([checkOf(compiled), compiled]), { mode: 0o600 });
    await rename(half, path);
    return compiled;
  } catch (thrown) {
    if (thrown instanceof MayflyError) throw thrown;
    throw new MayflyError('E_POLICY_COMPILE', `${folder}: ${(thrown as Error).message}`, { cause: thrown });
  } finally {
    await rm(half, { force: true }).catch(() => {});
  }
}

function checkOf(bytes: Buffer): Buffer {
  return createHash('sha256').update(bytes).digest();
}

/** No file of the host's is read but the features; a rule that the kernel cannot enforce is an error. */
const ARGUMENTS = [
  '--config-file', '/dev/null', '--skip-kernel-load', '--skip-cache', '--stdout', '--jobs', '0',
  '--warn=rule-not-enforced', '--Werror=rule-not-enforced',
];

function compile(text: string, featuresFile: string): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    const child = spawn('apparmor_parser', [...ARGUMENTS, '--features-file', featuresFile], {
      // No environment of ours: the parser needs none.
      env: { PATH: '/usr/sbin:/usr/bin:/sbin:/bin', LC_ALL: 'C' },
      cwd: '/',
      stdio: ['pipe', 'pipe', 'pipe'],
      timeout: limits.policyCompileMillisMax,
      killSignal: 'SIGKILL',
    });
    const chunks: Buffer[] = [];
    let bytes = 0;
    let words = '';
    const refuse = (message: string): void => {
      child.kill('SIGKILL');
      const said = printableLine(words.trim(), limits.errorMessageUnits);
      reject(new MayflyError('E_POLICY_COMPILE', said === '' ? message : `${message}: ${said}`));
    };
    child.stdout.on('data', (chunk: Buffer) => {
      bytes += chunk.length;
      chunks.push(chunk);
      if (bytes > limits.policyBytesMax) refuse(`the compiled policy has more than ${limits.policyBytesMax} bytes`);
    });
    child.stderr.setEncoding('utf8').on('data', (said: string) => {
      words = (words + said).slice(-limits.errorStackUnits);
    });
    child.once('error', (cause) => refuse(`apparmor_parser could not be run: ${cause.message}`));
    child.once('close', (status, signal) => {
      if (status === 0 && bytes > 0) resolve(Buffer.concat(chunks));
      else refuse(`apparmor_parser ended with ${signal ?? `status ${status}`}`);
    });
    child.stdin.on('error', () => {});
    child.stdin.end(text);
  });
}
