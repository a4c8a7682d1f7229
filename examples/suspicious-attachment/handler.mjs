/** Opens an attachment, so that nobody else has to: here it only measures it. */
export default async ({ data }) => data.attachments.map(({ name, size }) => ({ name, size }));
