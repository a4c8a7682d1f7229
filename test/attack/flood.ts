/**
 * An attacker in a process of its own, in the guest's place: descriptor 3 is the bridge, as QEMU has it. It behaves
 * until START and then writes frames of one kind as fast as it can, for ever, without reading.
 *
 * `node flood.ts TYPE STREAM PAYLOAD_HEX`
 */
import { readSync, writeSync } from 'node:fs';
import { encodeFrame, FrameDecoder, frameTypes, streams } from '../../src/bridge/frame.ts';
import { encodeMessage } from '../../src/bridge/message.ts';
import { adopted, cloneNonce, facts } from '../unit/bridge/rig.ts';

const BRIDGE = 3;
const [type = '', stream = '', payload = ''] = process.argv.slice(2);
let sequence = 0;

function make(kind: number, on: number, bytes: Buffer): Buffer {
  return encodeFrame({ type: kind, sequence: sequence++, stream: on, nonce: cloneNonce, payload: bytes });
}

const decoder = new FrameDecoder({ from: 'host', nonce: 0n });
const chunk = Buffer.alloc(65_536);
for (let started = false; !started; ) {
  const length = readSync(BRIDGE, chunk);
  if (length === 0) process.exit(1);
  for (const { type: heard, stream: on } of decoder.push(chunk.subarray(0, length))) {
    if (heard === frameTypes.ADOPT) writeSync(BRIDGE, make(frameTypes.ADOPTED, 0, encodeMessage('ADOPTED', adopted)));
    if (heard === frameTypes.END && on === streams.code) {
      writeSync(BRIDGE, make(frameTypes.PROOF, 0, encodeMessage('PROOF', { fact: facts })));
    }
    if (heard === frameTypes.START) started = true;
  }
}

for (;;) {
  const frames: Buffer[] = [];
  for (let bytes = 0; bytes < 65_536; bytes += frames.at(-1)?.length ?? 1) {
    frames.push(make(Number(type), Number(stream), Buffer.from(payload, 'hex')));
  }
  const batch = Buffer.concat(frames);
  for (let written = 0; written < batch.length; ) written += writeSync(BRIDGE, batch, written);
}
