/**
 * What an attachment really is, by its bytes, and what is suspicious about it. Names and declared types are claims; a
 * claim that the bytes contradict is itself a sign. Nothing is unpacked or run here: an archive's own table of contents
 * is read.
 */
import { fileTypeFromBuffer } from 'file-type';
import { entropyOf } from '../core/entropy.ts';
import { limits } from '../core/limits.ts';
import { listArchive } from './archive.ts';
import type { ArchiveListing } from './archive.ts';

/** A sign with the probability that it alone means harm; docs/FORMATS.md has the table. */
export const signWeights = Object.freeze({
  executable: 0.35,
  'disguised-executable': 0.75,
  script: 0.2,
  'type-mismatch': 0.3,
  macro: 0.5,
  'script-in-image': 0.6,
  'active-document': 0.35,
  'archive-bomb': 0.75,
  'archive-path': 0.6,
  'archive-executable': 0.3,
  'archive-encrypted': 0.25,
  'double-extension': 0.4,
  'high-entropy': 0.15,
  'prototype-key': 0.25,
  'not-fully-seen': 0.25,
});
export type SignName = keyof typeof signWeights;

export interface Sign {
  readonly name: SignName;
  readonly where: string;
  /** What was found, in words. */
  readonly what: string;
}

export interface Content {
  /** Media type by content, as in `image/png`; `application/octet-stream` when nothing is recognised. */
  readonly type: string;
  /** Bytes when unpacked, as the archive itself claims; equal to its size for everything else. */
  readonly unpackedBytes: number;
  readonly members: readonly string[];
  readonly signs: readonly Omit<Sign, 'where'>[];
}

export interface Claim {
  /** File name; empty when none is known. */
  readonly name: string;
  /** Declared media type; empty when none is. */
  readonly type: string;
}

const EXECUTABLE_TYPE = /^application\/(x-elf|x-msdownload|x-mach-binary|java-vm|wasm|x-dosexec|x-ms-shortcut|x-msi)$/;
const EXECUTABLE_NAME = /\.(exe|dll|scr|com|pif|msi|jar|class|elf|so|dylib|lnk|cpl|sys)$/i;
const SCRIPT_NAME = /\.(sh|bash|bat|cmd|ps1|vbs|vbe|js|jse|wsf|hta|py|pl|rb|php)$/i;
const DOUBLE = /\.(pdf|docx?|xlsx?|pptx?|jpe?g|png|gif|txt|csv|zip|mp[34])\s*\.[a-z0-9]{2,4}$/i;

export async function inspect(bytes: Buffer, claim: Claim): Promise<Content> {
  const type = await typeOf(bytes);
  const archive = listArchive(bytes, type);
  const signs = [...signsOfKind(bytes, type, claim), ...signsOfArchive(bytes, archive)];
  return { type, unpackedBytes: Math.max(bytes.length, archive.unpackedBytes), members: archive.members, signs };
}

async function typeOf(bytes: Buffer): Promise<string> {
  const head = bytes.subarray(0, limits.sniffBytes);
  const known = await fileTypeFromBuffer(head).catch(() => undefined);
  if (known !== undefined && known.mime !== 'application/xml') return known.mime.replace(/;.*/, '');
  return typeOfText(head);
}

/** What file-type does not know: texts. The first rule that fits. */
const TEXT_RULES: readonly (readonly [RegExp, string])[] = [
  [/^#!/, 'text/x-shellscript'],
  [/^\s*<\?php/i, 'text/x-php'],
  [
    /^\s*(?:<\?xml[^>]{0,200}>\s*)?(?:<!--[^>]{0,500}-->\s*)?(?:<!doctype svg[^>]{0,300}>\s*)?<svg[\s>]/i,
    'image/svg+xml',
  ],
  [/^\s*(?:<!doctype html|<html[\s>]|<script[\s>])/i, 'text/html'],
  [/^\s*<\?xml/i, 'application/xml'],
  [/^\s*(?:@echo off|powershell|\$[A-Za-z]+\s*=\s*New-Object)/i, 'text/x-script'],
  [/^\s*(?:Set\s+\w+\s*=\s*CreateObject|WScript\.)/i, 'text/x-script'],
  [/^\s*[[{]/, 'application/json'],
];

function typeOfText(head: Buffer): string {
  const text = head
    .subarray(0, 4096)
    .toString('latin1')
    .replace(/^\u00ef\u00bb\u00bf/, '');
  for (const [rule, type] of TEXT_RULES) if (rule.test(text)) return type;
  return looksLikeText(head) ? 'text/plain' : 'application/octet-stream';
}

function looksLikeText(head: Buffer): boolean {
  let control = 0;
  for (const byte of head.subarray(0, 4096)) if (byte < 9 || (byte > 13 && byte < 32) || byte === 127) control += 1;
  return control === 0 && head.length > 0;
}

function signsOfKind(bytes: Buffer, type: string, claim: Claim): Omit<Sign, 'where'>[] {
  const signs: Omit<Sign, 'where'>[] = [];
  const found = (name: SignName, what: string): void => void signs.push({ name, what });
  const claimed = claim.type.toLowerCase().replace(/;.*/, '').trim();
  const executable = EXECUTABLE_TYPE.test(type);
  const script = /^text\/x-(shellscript|php|script)$/.test(type);
  const innocent =
    /^(image|audio|video|text)\/|pdf|word|excel|powerpoint|opendocument/.test(claimed) ||
    /\.(pdf|docx?|xlsx?|pptx?|jpe?g|png|gif|txt|csv|mp[34])$/i.test(claim.name);
  if (executable && innocent) found('disguised-executable', `${type}, called ${claim.name || claimed}`);
  else if (executable || EXECUTABLE_NAME.test(claim.name)) found('executable', executable ? type : claim.name);
  else if (script || SCRIPT_NAME.test(claim.name)) found('script', script ? type : claim.name);
  const named = TYPE_OF_ENDING[/\.(\w{2,4})$/.exec(claim.name)?.[1]?.toLowerCase() ?? ''];
  if (!executable && contradicts(claimed, type)) found('type-mismatch', `declared ${claimed}, is ${type}`);
  else if (!executable && named !== undefined && type !== 'application/octet-stream' && contradicts(named, type))
    found('type-mismatch', `called ${claim.name}, is ${type}`);
  if (DOUBLE.test(claim.name)) found('double-extension', claim.name);
  const image = type.startsWith('image/') || claimed.startsWith('image/');
  const text = image || type === 'application/pdf' || type === 'application/rtf' ? searchable(bytes) : '';
  if (image && (type === 'image/svg+xml' ? SVG_SCRIPT : IMAGE_SCRIPT).test(text))
    found('script-in-image', `script inside ${type}`);
  if (type === 'application/pdf' && /\/(JavaScript|JS|OpenAction|Launch|EmbeddedFile|AA)\b/.test(text)) {
    found('active-document', 'PDF with scripts, actions or files');
  }
  if (type === 'application/rtf' && /\\obj(data|update|html|ocx)/.test(text))
    found('active-document', 'RTF with objects');
  if (hasMacros(bytes, type)) found('macro', `${type} with macros`);
  if (type === 'application/octet-stream' && bytes.length >= 4096) {
    const bits = entropyOf(bytes.subarray(0, ENTROPY_BYTES));
    if (bits > 7.9) found('high-entropy', `${bits.toFixed(2)} bits per byte and no known type`);
  }
  return signs;
}

/** What a name promises, where nobody has declared a type: endings whose files are recognised by their bytes. */
const TYPE_OF_ENDING: Readonly<Record<string, string>> = {
  pdf: 'application/pdf', png: 'image/png', jpg: 'image/jpeg', jpeg: 'image/jpeg', gif: 'image/gif',
  webp: 'image/webp', zip: 'application/zip', docx: 'application/zip', xlsx: 'application/zip',
  gz: 'application/gzip', mp4: 'video/mp4',
};

const SVG_SCRIPT = /<script[\s>]|javascript:|\son(load|error|click|mouseover|begin)\s*=|<foreignobject/i;
const IMAGE_SCRIPT = /<script[\s>]|<\?php|<%@|#!\/(bin|usr)\/|\beval\s*\(\s*(base64_decode|atob)/i;

/** Enough to hold what readers of these formats look at: the first and the last mebibyte. */
function searchable(bytes: Buffer): string {
  const part = 1024 * 1024;
  if (bytes.length <= 2 * part) return bytes.toString('latin1');
  return bytes.toString('latin1', 0, part) + bytes.toString('latin1', bytes.length - part);
}

/** Declared types that say as much as nothing, and those that are another name of what was found. */
const VAGUE = /^$|^application\/(octet-stream|x-binary|json)$|^\*\/\*$|^multipart\//;

function contradicts(claimed: string, type: string): boolean {
  if (VAGUE.test(claimed) || claimed === type) return false;
  const family = (name: string): string => {
    if (/zip|openxmlformats|opendocument|java-archive|epub|android/.test(name)) return 'zip';
    if (/cfb|msword|ms-excel|ms-powerpoint|ole/.test(name)) return 'ole';
    if (/xml|html|json|javascript|csv|yaml|^text\//.test(name) && !name.startsWith('image/')) return 'text';
    if (/gzip|x-gzip/.test(name)) return 'gzip';
    return name
      .replace(/^(application|image|audio|video)\/(x-)?/, '')
      .replace('jpg', 'jpeg')
      .replace('pjpeg', 'jpeg');
  };
  return family(claimed) !== family(type);
}

/** Office macros: a vbaProject in a zip, or the stream names of one in an OLE file. */
function hasMacros(bytes: Buffer, type: string): boolean {
  if (/macroenabled/i.test(type)) return true;
  if (type.includes('zip') || type.includes('openxmlformats')) return bytes.includes('vbaProject.bin');
  return (
    type === 'application/x-cfb' &&
    (bytes.includes(Buffer.from('_VBA_PROJECT', 'utf16le')) || bytes.includes('Attribut\0e VB_'))
  );
}

/** The first so many bytes tell. */
const ENTROPY_BYTES = 1024 * 1024;

/** Ratio that no honest archive of everyday files reaches, and the size from which it hurts. */
const BOMB_RATIO = 100;
const BOMB_BYTES = 50 * 1024 * 1024;

function signsOfArchive(bytes: Buffer, archive: ArchiveListing): Omit<Sign, 'where'>[] {
  const signs: Omit<Sign, 'where'>[] = [];
  const { members, unpackedBytes } = archive;
  const ratio = unpackedBytes / Math.max(1, bytes.length);
  if ((ratio > BOMB_RATIO && unpackedBytes > BOMB_BYTES) || archive.overlapping) {
    const what = `${bytes.length} bytes claim to become ${unpackedBytes}`;
    signs.push({ name: 'archive-bomb', what: archive.overlapping ? 'members share the same bytes' : what });
  }
  const escaping = members.find((member) => /(^|[\\/])\.\.([\\/]|$)|^[\\/]|^[A-Za-z]:[\\/]/.test(member));
  if (escaping !== undefined) signs.push({ name: 'archive-path', what: `member ${escaping.slice(0, 100)}` });
  const runs = members.find((member) => EXECUTABLE_NAME.test(member) || SCRIPT_NAME.test(member));
  if (runs !== undefined && !members.includes('[Content_Types].xml')) {
    signs.push({ name: 'archive-executable', what: `member ${runs.slice(0, 100)}` });
  }
  const double = members.find((member) => DOUBLE.test(member));
  if (double !== undefined) signs.push({ name: 'double-extension', what: `member ${double.slice(0, 100)}` });
  if (archive.encrypted) signs.push({ name: 'archive-encrypted', what: 'its members cannot be looked at' });
  if (archive.truncated)
    signs.push({ name: 'not-fully-seen', what: `an archive with more than ${limits.archiveMembersMax} members` });
  return signs;
}
