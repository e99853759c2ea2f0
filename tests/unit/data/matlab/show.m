function varargout = show (varargin)
% SHOW  Print class and value of each argument.
  for k = 1:numel (varargin)
    printf ('%s %s\n', class (varargin{k}), disp (varargin{k})(1:end-1));
  end
  varargout = {42, 'text'};
end
