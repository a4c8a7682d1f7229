/** Says what it was given room for; a real pipeline would resize here. */
export default async ({ data }, { memoryBytes }) => ({ file: data.file, bytes: data.bytes, memoryBytes });
