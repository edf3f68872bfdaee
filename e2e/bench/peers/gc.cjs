// Preloaded into the peer's process (node --require): collects its garbage when
// asked to with SIGUSR2, so that memory is compared after a collection on both
// sides. It changes nothing else.
'use strict';
process.on('SIGUSR2', () => global.gc());
