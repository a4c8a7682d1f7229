/** Certificates for servers of tests, made by the `openssl` that set-up needs anyway; two per name, kept in memory. */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

export interface Pair {
  readonly key: string;
  readonly cert: string;
}

function inTemporary<T>(work: (folder: string) => T): T {
  const folder = mkdtempSync(join(tmpdir(), 'mayfly-cert-'));
  try {
    return work(folder);
  } finally {
    rmSync(folder, { recursive: true });
  }
}

function openssl(folder: string, ...args: string[]): void {
  execFileSync('openssl', args, { cwd: folder, stdio: 'ignore' });
}

const KEY = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-keyout', 'key'];

export function selfSigned(names: readonly string[]): Pair {
  return inTemporary((folder) => {
    const alternative = `subjectAltName=${names.map((name) => `DNS:${name}`).join(',')}`;
    openssl(folder, 'req', '-x509', ...KEY, '-out', 'cert', '-days', '2', '-subj', '/CN=test', '-addext', alternative);
    return { key: readFileSync(join(folder, 'key'), 'utf8'), cert: readFileSync(join(folder, 'cert'), 'utf8') };
  });
}
