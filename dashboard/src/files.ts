// Files between the page and the reader's disk.

/** Hands a file to the browser to keep. */
export function saveAs(file: Blob, name: string) {
  const address = URL.createObjectURL(file);
  const anchor = document.createElement('a');
  anchor.href = address;
  anchor.download = name;
  anchor.click();
  // The browser has taken hold of it once the click is through.
  setTimeout(() => URL.revokeObjectURL(address), 60_000);
}

const LINE_END = 10;

/** Lines that are not empty, without holding the file in memory. */
export async function countLines(file: Blob): Promise<number> {
  const reader = file.stream().getReader();
  let lines = 0;
  let within = false;
  for (let piece = await reader.read(); !piece.done; piece = await reader.read()) {
    for (const byte of piece.value) {
      if (byte === LINE_END) {
        if (within) lines += 1;
        within = false;
      } else within = true;
    }
  }
  return lines + (within ? 1 : 0);
}
