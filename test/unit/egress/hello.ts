/** ClientHellos as no library makes them. */
export interface HelloOptions {
  readonly name?: string;
  readonly names?: readonly string[];
  readonly alpn?: readonly string[];
  readonly extra?: readonly (readonly [number, Buffer])[];
  readonly after?: Buffer;
}

function list(width: 1 | 2, ...parts: Buffer[]): Buffer {
  const bytes = Buffer.concat(parts);
  const length = Buffer.alloc(width);
  length.writeUIntBE(bytes.length, 0, width);
  return Buffer.concat([length, bytes]);
}

function serverName(name: string): Buffer {
  return Buffer.concat([Buffer.from([0]), list(2, Buffer.from(name))]);
}

function word(value: number): Buffer {
  const bytes = Buffer.alloc(2);
  bytes.writeUInt16BE(value);
  return bytes;
}

/** The handshake message, without records. */
export function clientHello({ name, names, alpn, extra = [], after = Buffer.alloc(0) }: HelloOptions): Buffer {
  const wanted = names ?? (name === undefined ? [] : [name]);
  const extensions: (readonly [number, Buffer])[] = [
    ...(wanted.length === 0 ? [] : [[0, list(2, ...wanted.map(serverName))] as const]),
    ...(alpn === undefined ? [] : [[16, list(2, ...alpn.map((each) => list(1, Buffer.from(each))))] as const]),
    [43, list(1, word(0x0304))],
    ...extra,
  ];
  const body = Buffer.concat([
    word(0x0303), Buffer.alloc(32, 7), list(1, Buffer.alloc(32)), list(2, word(0x1301)), list(1, Buffer.alloc(1)),
    list(2, ...extensions.map(([type, bytes]) => Buffer.concat([word(type), list(2, bytes)]))), after,
  ]);
  const length = Buffer.alloc(4);
  length.writeUInt32BE(body.length);
  length[0] = 1;
  return Buffer.concat([length, body]);
}

/** A handshake message in records of at most `size` bytes. */
export function recordsOf(message: Buffer, size: number): Buffer {
  const records: Buffer[] = [];
  for (let at = 0; at < message.length; at += size) {
    records.push(Buffer.from([22, 3, 1]), list(2, message.subarray(at, at + size)));
  }
  return Buffer.concat(records);
}
