function acquire (session_folder, varargin)
% ACQUIRE  An acquisition as a lab writes one: name/value pairs, a resume flag, one line and one record a frame.
  frames = 3; seconds = 0.02; resume = false; die_at = 0; fail_at = 0;
  for k = 1:2:numel (varargin)
    switch varargin{k}
      case 'frames', frames = double (varargin{k + 1});
      case 'seconds', seconds = varargin{k + 1};
      case 'resume', resume = varargin{k + 1};
      case 'die_at', die_at = varargin{k + 1};
      case 'fail_at', fail_at = varargin{k + 1};
    end
  end
  name = fullfile (session_folder, 'frames.txt');
  first = 1;
  if resume
    text = fileread (name);
    first = sum (text == 10) + 1;
    fprintf ('resumed at frame %d\n', first);
  end
  file = fopen (name, 'a');
  closing = onCleanup (@() finish (file, session_folder));
  for frame = first:frames
    fprintf (file, '%d\n', frame);
    fprintf ('frame %d\n', frame);
    if frame == fail_at
      error ('Rig:shutter', 'the shutter\nis "stuck" at %d', frame);
    end
    if frame == die_at && ~resume
      fclose (file);
      kill (getpid (), 9);
    end
    pause (seconds);
  end
end

function finish (file, folder)
  fclose (file);
  fclose (fopen (fullfile (folder, 'closed.txt'), 'w'));
end
