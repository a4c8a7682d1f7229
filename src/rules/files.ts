/** Rule files of a folder, in the order of their names, within bounds. */
import { open, readdir, stat } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { MayflyError } from '../core/errors.ts';
import { limits } from '../core/limits.ts';
import type { RuleFile } from './load.ts';

const ENDING = /\.ya?ml$/;

/** All `.yaml` and `.yml` files of a folder, or the one file that is named. Rejects with E_RULES_INVALID. */
export async function readRuleFiles(path: string): Promise<readonly RuleFile[]> {
  const found = await stat(path).catch((cause: unknown) => {
    throw new MayflyError('E_RULES_INVALID', `${path}: there is no such folder or file`, { cause });
  });
  const folder = found.isDirectory() ? path : dirname(path);
  const names = found.isDirectory()
    ? (await readdir(path)).filter((name) => ENDING.test(name)).sort()
    : [basename(path)];
  if (names.length === 0) throw new MayflyError('E_RULES_INVALID', `${path}: there is no .yaml file in it`);
  if (names.length > limits.ruleFilesMax) {
    throw new MayflyError('E_RULES_INVALID', `${path}: there are more than ${limits.ruleFilesMax} rule files`);
  }
  const files: RuleFile[] = [];
  for (const name of names) files.push({ name: join(folder, name), bytes: await readBounded(join(folder, name)) });
  return files;
}

/** One byte beyond the bound is enough for the parser to refuse the file. */
async function readBounded(path: string): Promise<Buffer> {
  const file = await open(path).catch((cause: unknown) => {
    throw new MayflyError('E_RULES_INVALID', `${path} cannot be read`, { cause });
  });
  try {
    const { buffer, bytesRead } = await file.read(Buffer.alloc(limits.ruleFileBytesMax + 1), 0);
    return buffer.subarray(0, bytesRead);
  } finally {
    await file.close();
  }
}
