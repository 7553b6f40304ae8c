//! Finding the last lines: a walk back over the records' ends.

use std::{fs::File, io, os::unix::fs::FileExt};

use super::{ContainerLog, Position, reader::open, record};

const WINDOW: usize = 256 * 1024;

/// Where the last `lines` records before `end` start; the oldest record if there are fewer.
pub fn position(log: &ContainerLog, end: Position, mut lines: u64) -> io::Result<Position> {
    if lines == 0 {
        return Ok(end);
    }
    let mut generations: Vec<u64> = log.with_files(|| log.segments.rotated_numbers())?;
    generations.retain(|number| *number < end.generation);
    generations.push(end.generation);
    let mut oldest = end;
    for generation in generations.into_iter().rev() {
        let Some(file) = open(log, generation)? else { break };
        let limit = if generation == end.generation { end.offset } else { record::whole_length(&file)? };
        let (start, found) = walk_back(&file, limit, lines)?;
        oldest = Position { generation, offset: start };
        lines -= found;
        if lines == 0 {
            break;
        }
    }
    Ok(oldest)
}

/// Steps back over at most `lines` records from `from`; answers where it came and over how many.
fn walk_back(file: &File, from: u64, lines: u64) -> io::Result<(u64, u64)> {
    let mut end = from;
    let mut found = 0;
    let mut window = Vec::new();
    while found < lines && end > 0 {
        let start = end.saturating_sub(WINDOW as u64);
        window.resize(usize::try_from(end - start).expect("at most a window"), 0);
        file.read_exact_at(&mut window, start)?;
        let mut used = window.len();
        while found < lines {
            let Some(record) = record::last_start(&window[..used]) else { break };
            used = record;
            found += 1;
        }
        if used == window.len() {
            break;
        }
        end = start + used as u64;
    }
    Ok((end, found))
}
